# Completion of cutover's tools for fish: put this file into ~/.config/fish/conf.d, for it is one for all of them.
#
# What a tool takes is what its --help says: the options, and by the name of an option's value what is offered for it.
# Instances, releases and refs are those of the home that the tool would find. Nothing is asked of the network.

# The file that the line's first word runs, when it is one of cutover's. Another program of that name is not called, for it
# may do its work whatever it is told; nor is one of another user's.
function __cutover_program
    set -l words (commandline -opc)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    if not string match -q '*/*' -- $program
        # fish has a history and a status of its own.
        contains -- file (type -t -- $program 2>/dev/null); or return
        set program (command -s -- $program)
    end
    set program (realpath -- $program 2>/dev/null); or return
    set -l directory (dirname -- $program)
    # The archive's install runs the one beside the tools.
    set -l beside $directory/bin/(basename -- $program)
    if test -x $beside
        set program $beside
        set directory $directory/bin
    end
    test -x $directory/disabled-instance; or return
    test -O $program -o (stat -c %u -- $program) = 0; and echo $program
end

# The home: as --home says, else $CUTOVER_HOME, else where the program lies.
function __cutover_home --argument-names program
    set -l home (dirname -- (dirname -- $program))
    if test -n "$CUTOVER_HOME"
        set home $CUTOVER_HOME
    end
    set -l words (commandline -opc)
    for at in (seq (count $words))
        if test "$words[$at]" = --home
            set home $words[(math $at + 1)]
        else if string match -q -- '--home=*' $words[$at]
            set home (string replace -- --home= '' $words[$at])
        end
    end
    set home (string replace -r '^~/' "$HOME/" -- $home)
    # What lies in another user's home may be anything.
    test -O "$home"; and echo $home
end

# The instances that a configuration names, by default A and B.
function __cutover_instances --argument-names home
    set -l names (sed -n '/^\[instances\]/,/^\[/s/^\([A-Za-z0-9_-]*\) *=.*/\1/p' $home/config.toml 2>/dev/null)
    test -n "$names"; or set names A B
    string join \n -- $names
end

# The branches and tags that the last deploy has seen. git does what a repository's configuration says.
function __cutover_refs --argument-names home
    test -O "$home/repo.git"; or return
    # All of it in one go: fish may put what it prints itself before what a program has printed.
    set -l refs (git --git-dir=$home/repo.git for-each-ref --format='%(refname:strip=2)' refs/heads refs/tags 2>/dev/null)
    and string join \n -- $refs latest-tag
end

# The releases that can be gone back to, or for the logs those whose build has one; the newest first.
function __cutover_releases --argument-names program home
    if test (basename -- $program) = logs
        ls -r $home/logs 2>/dev/null | string replace -rf '^build-(.*)\.log$' '$1'
        return
    end
    set -l tool (dirname -- $program)/history
    $tool --home $home --releases 2>/dev/null
end

# What may stand at the cursor, each with what it means.
function __cutover_words
    set -l program (__cutover_program); or return
    set -l help ($program --help 2>/dev/null)
    set -l words (commandline -opc)
    set -l option $words[-1]
    set -l word (commandline -ct)
    # A word such as --to=ID holds both.
    set -l prefix ''
    if string match -q -- '--*=*' $word
        set prefix (string replace -r '=.*' '=' -- $word)
        set option (string replace = '' -- $prefix)
        set word (string replace -- $prefix '' $word)
    end
    set -l pattern '\s'(string escape --style=regex -- $option)'(?:, --[a-z0-9-]+)? \[?<([A-Z:]+)>'
    # An option may do without its value.
    set -l value
    string match -q -- '-*' $word; or set value (string match -r -- $pattern $help)
    set -l offered
    switch "$value[2]"
        case FILE PATH
            set offered (__fish_complete_path $word)
        case DIR
            set offered (__fish_complete_directories $word)
        case USER
            set offered (__fish_complete_users)
        case REF
            set offered (__cutover_refs (__cutover_home $program))
        case RELEASE
            set offered (__cutover_releases $program (__cutover_home $program))
        case ''
            if string match -q -- '-*' $word
                set offered (string replace -rf '^ +(?:-., )?(--[a-z0-9-]+)(?: \[?<[A-Z:]+>\]?)? +(.*)$' '$1\t$2' -- $help)
            else if string match -qr '[[<]INSTANCE[]>]' -- $help
                set offered (__cutover_instances (__cutover_home $program))
            end
    end
    printf '%s\n' $prefix$offered
end

for tool in bootup connect-to-nginx deploy disabled-instance disabled-port enabled-instance enabled-port history install \
        logs on-push pid reload rollback start-instance status stop-instance supervise update-instance
    complete -c $tool -n '__cutover_program >/dev/null' -f -k -a '(__cutover_words)'
end
