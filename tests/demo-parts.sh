# The parts that all demos have in common, to be read by one of them.

say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$1"; }
show() {
    echo "\$ $*"
    "$@"
}

# begin_load PLACE TOOLS ADDRESS: the load reads labels, and answers each with what was requested and what was lost since
# the last one.
begin_load() {
    say "From here on under load: 16 kept-alive connections and 4 fresh ones, a quarter POSTs"
    mkfifo "$1/labels"
    "$2/examples/load" --target "$3" --kept-alive 16 --fresh 4 --until-eof <"$1/labels" >"$1/report" 2>/dev/null &
    load=$! figures=$1/report
    exec 3>"$1/labels"
    sleep 1
    report "before"
}
report() {
    echo "$1" >&3
    until grep "^$1: " "$figures"; do sleep 0.05; done
}
must_lose_nothing() {
    grep -q "^$1: .* 0 failed" "$figures" || {
        echo "demo: the $1 lost requests" >&2
        exit 1
    }
}
end_load() {
    say "Requests made and requests failed"
    exec 3>&-
    wait "$load" || true
    load=
    cat "$figures"
}
