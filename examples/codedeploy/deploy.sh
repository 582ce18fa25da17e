#!/bin/sh
# Deploys the revision that CodeDeploy's agent unpacked, whose root this file lies in. It ends with deploy's exit code;
# all but 0 fail the deployment, and the old release serves on.
set -eu

home=/home/potados/.cafeteria # the app's home: change it, and nothing else

revision=$(cd "$(dirname "$0")" && pwd)
if [ -e "$revision/.git" ]; then
    echo "deploy.sh: cannot deploy $revision: it holds .git; leave that out of the bundle, as git archive does" >&2
    exit 2
fi

# With exec and runuser -u, which starts no shell and no session, the agent's SIGTERM reaches deploy.
set -- "$home/bin/deploy" --wait --from "$revision"
if [ "$(id -u)" -eq 0 ]; then
    # From root's own record: what lies in the home is the user's to change.
    record=$(grep -lxF "home = \"$home\"" /var/lib/cutover/*.record) && user=$(sed -n 's/^user = "\(.*\)"$/\1/p' "$record") || {
        echo "deploy.sh: cannot tell whose app $home is: root has not installed one there" >&2
        exit 2
    }
    set -- runuser -u "$user" -- "$@"
fi
exec "$@"
