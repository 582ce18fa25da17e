# Completion of cutover's tools for bash; for zsh after: autoload -U +X bashcompinit && bashcompinit
#
# Options come from the tool's own --help, instances and releases from the home that the tool finds.
# shellcheck disable=SC2016,SC2034

_cutover() {
    local tool=$1 current=$2 previous=$3 words='' home
    home=$(cd "$(dirname "$(command -v "$tool")")/.." 2>/dev/null && pwd)
    case $previous in
        --from | --home | --config)
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        --user)
            mapfile -t COMPREPLY < <(compgen -u -- "$current")
            return
            ;;
        --ref) words="latest-tag $(git --git-dir="$home/repo.git" for-each-ref --format='%(refname:short)' 2>/dev/null)" ;;
        --to) words=$(cd "$home/releases" 2>/dev/null && ls) ;;
        *)
            if [[ $current == -* ]]; then
                words=$("$tool" --help 2>/dev/null | grep -o -e '--[a-z][a-z-]*')
            else
                case ${tool##*/} in
                    logs | pid | supervise | *-instance | connect-to-nginx)
                        words=$(cd "$home/instances" 2>/dev/null && ls)
                        ;;
                esac
            fi
            ;;
    esac
    # compgen expands what it is given: it is given the variable's name, for a branch may be called $(anything).
    mapfile -t COMPREPLY < <(compgen -W '$words' -- "$current")
}

# Not install: that is the name of another program as well.
complete -F _cutover bootup connect-to-nginx deploy disabled-instance disabled-port enabled-instance enabled-port logs \
    on-push pid rollback start-instance status stop-instance supervise update-instance
