# Completion of cutover's tools for bash: source this file from ~/.bashrc.
#
# What a tool takes is what its --help says: the options, and by the name of an option's value what is offered for it.
# Instances, releases and refs are those of the home that the tool would find. Nothing is asked of the network.

# A word of the line without its quotes; what it says is not evaluated.
_cutover_plain() {
    local word=${1//[\\\"\']/}
    printf '%s\n' "${word/#\~\//"$HOME"/}"
}

# The file that this word runs, when it is one of cutover's. Another program of that name is not called, for it may do its
# work whatever it is told; nor is one of another user's.
_cutover_program() {
    local program
    program=$(_cutover_plain "$1")
    if [[ $program != */* ]]; then
        # bash has a history of its own.
        [[ $(type -t "$program") == file ]] && program=$(type -P "$program") || return
    fi
    program=$(readlink -f -- "$program") || return
    # The archive's install runs the one beside the tools.
    [[ -x ${program%/*}/bin/${program##*/} ]] && program=${program%/*}/bin/${program##*/}
    [[ -x ${program%/*}/disabled-instance && ( -O $program || $(stat -c %u -- "$program") == 0 ) ]] && printf '%s\n' "$program"
}

# The home: as --home says, else $CUTOVER_HOME, else where the program lies.
_cutover_home() {
    local home=${CUTOVER_HOME:-${1%/*/*}} at
    for ((at = 1; at < ${#COMP_WORDS[@]} - 1; at++)); do
        [[ ${COMP_WORDS[at]} == --home ]] || continue
        [[ ${COMP_WORDS[at + 1]} == = ]] && ((at++))
        home=$(_cutover_plain "${COMP_WORDS[at + 1]}")
    done
    # What lies in another user's home may be anything.
    [[ -O $home ]] && printf '%s\n' "$home"
}

# The instances that a configuration names, by default A and B.
_cutover_instances() {
    local names
    names=$(sed -n '/^\[instances\]/,/^\[/s/^\([A-Za-z0-9_-]*\) *=.*/\1/p' "$1/config.toml" 2>/dev/null)
    printf '%s\n' "${names:-$'A\nB'}"
}

# The branches and tags that the last deploy has seen. git does what a repository's configuration says.
_cutover_refs() {
    [[ -O $1/repo.git ]] && git --git-dir="$1/repo.git" for-each-ref --format='%(refname:strip=2)' refs/heads refs/tags 2>/dev/null && echo latest-tag
}

# The releases that can be gone back to, or for the logs those whose build has one; the newest first.
_cutover_releases() {
    case ${1##*/} in
        logs) printf '%s\n' "$2"/logs/build-*.log | sed -n 's/.*\/build-\([0-9].*\)\.log$/\1/p' | sort -r ;;
        *) "${1%/*}/history" --home "$2" --releases ;;
    esac
}

_cutover() {
    local current=$2 previous=$3 program home help value words=() word quoted
    COMPREPLY=()
    if ! program=$(_cutover_program "$1"); then
        compopt -o default
        return
    fi
    # A word such as --to=ID comes in three.
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    home=$(_cutover_home "$program")
    help=$("$program" --help 2>/dev/null)
    # An option may do without its value.
    [[ $current != -* && $help =~ [[:space:]]"$previous"(', '--[a-z0-9-]+)?' '\[?'<'([A-Z:]+)'>' ]] && value=${BASH_REMATCH[2]}
    case $value in
        FILE | PATH) compopt -o default ;;
        DIR) compopt -o dirnames ;;
        USER) mapfile -t words < <(compgen -u) ;;
        REF) mapfile -t words < <(_cutover_refs "$home") ;;
        RELEASE)
            compopt -o nosort
            mapfile -t words < <(_cutover_releases "$program" "$home" 2>/dev/null)
            ;;
        '')
            if [[ $current == -* ]]; then
                mapfile -t words < <(sed -n 's/^ *\(-., \)\{0,1\}\(--[a-z0-9-]*\).*/\2/p' <<<"$help")
            elif [[ $help == *[[\<]INSTANCE[]\>]* ]]; then
                mapfile -t words < <(_cutover_instances "$home")
            fi
            ;;
    esac
    # A branch may be called $(anything): what is put on the line must not be run by whoever then presses Enter.
    for word in "${words[@]}"; do
        printf -v quoted %q "$word"
        [[ $word == "$current"* || $quoted == "$current"* ]] && COMPREPLY+=("$quoted")
    done
}

complete -F _cutover bootup connect-to-nginx deploy disabled-instance disabled-port enabled-instance enabled-port history \
    install logs on-push pid reload rollback start-instance status stop-instance supervise update-instance
