#!/bin/sh
# A team's containers, from their old script to a rollback, in under a minute: demo.sh TOOLS IMAGE, beside a Docker and a
# registry that has the image with the tags v1, v2 and v3, of which v3 is broken. Fails if a deploy loses a request.
set -eu
exec 2>&1
built=$1 image=$2
place=$(mktemp -d "$HOME/demo.XXXXXX")
export HOME="$place"
load=

clean_up() {
    status=$?
    trap - EXIT INT TERM
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    "$built/install" --config "$place/dailry.toml" --remove --purge --force 2>/dev/null || true
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# shellcheck source=tests/demo-parts.sh
. "$(dirname "$0")/../demo-parts.sh"

say "The team's own files: nothing in them changes"
cat >"$place/docker-compose.yml" <<'EOF'
services:
  dailry-blue:
    image: ${DAILRY_IMAGE}
    ports: ["8081:8080"]
    restart: unless-stopped
  dailry-green:
    image: ${DAILRY_IMAGE}
    ports: ["8082:8080"]
    restart: unless-stopped
EOF
echo 'DAILRY_IMAGE=none' >"$place/.env"
cat >"$place/dailry.toml" <<EOF
app = "dailry"
[instances]
dailry-blue = 8081
dailry-green = 8082
[compose]
file = "$place/docker-compose.yml"
image_variable = "DAILRY_IMAGE"
image = "$image"
[nginx]
own = true
listen = ["127.0.0.1:8080"]
status_port = 8079
EOF
cat "$place/docker-compose.yml" "$place/dailry.toml"

say "Install, and the first deploy"
show "$built/install" --config "$place/dailry.toml"
PATH="$place/.dailry/bin:$PATH"
show deploy --ref v1
show curl --silent http://127.0.0.1:8080/

begin_load "$place" "$built" 127.0.0.1:8080

say "Version 2"
show deploy --ref v2
show curl --silent http://127.0.0.1:8080/
report "deploy"
must_lose_nothing "deploy"

say "Both containers side by side"
show status
show docker ps --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}'

say "A broken image: its container ends, and version 2 never notices"
echo "\$ deploy --ref v3"
deploy --ref v3 && exit 1 || echo "exit code $?"
show curl --silent http://127.0.0.1:8080/
report "broken"
must_lose_nothing "broken"

say "The enabled container's process is killed; the standby answers until Docker has started it again (a POST in flight is lost: nginx may not send it twice)"
echo "\$ kill -9 \$(pid)"
kill -9 "$(pid)"
sleep 1
report "kill -9"
status | grep -E "restarts|health"

say "Back to version 1, without asking the registry"
show rollback
show curl --silent http://127.0.0.1:8080/
report "rollback"
must_lose_nothing "rollback"

end_load
