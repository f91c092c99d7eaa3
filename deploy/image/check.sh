#!/usr/bin/env bash
# Builds the image and runs it, on a machine without a container engine or a registry.
#
#   sudo deploy/image/check.sh [cpu|cuda]
#
# buildah executes every step of the Dockerfile, on a base made of Debian's own packages. The
# result runs as the image says (user, entry point, health check), in a chroot on a read-only
# root without any capability, and has to find two enrolled persons in a group photo. Needs root
# and, from Debian, buildah, debootstrap, curl and iproute2.
set -euo pipefail
cd "$(dirname "$0")/../.."
variant=${1:-cpu}
image=localhost/faceid:$variant
for tool in buildah debootstrap curl ip unshare; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 2; }
done

work=$(mktemp -d)
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }
finish() {
    buildah umount --all >/dev/null 2>&1 || true
    umount "$work/storage/overlay" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

make_base() {
    local container name
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        bookworm "$work/base" >"$work/log" || { tail "$work/log" >&2; fail debootstrap; }
    for name in python python3 python3.11; do
        ln -s /usr/bin/python3.11 "$work/base/usr/local/bin/$name"
    done
    # A machine that reaches the package index by a certificate of its own builds with it too.
    cp -r /etc/ssl/certs "$work/base/etc/ssl/"
    [[ ! -f /etc/pip.conf ]] || cp /etc/pip.conf "$work/base/etc/"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/base" / >/dev/null
    buildah commit --quiet --rm "$container" localhost/base >/dev/null
    rm -rf "$work/base"
}

build() { # CONTEXT
    SECONDS=0
    buildah bud --isolation chroot --layers --format docker --quiet --tag "$image" \
        --build-arg PYTHON=localhost/base --build-arg VARIANT="$variant" \
        --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
        --build-arg REVISION="$(git rev-parse HEAD)" \
        --ignorefile .dockerignore --file Dockerfile "$1" >/dev/null
    echo "built in $SECONDS s"
}

config() { # TEMPLATE; one value a line
    buildah inspect --type image --format "$1" "$image" | sed '/^$/d'
}

# In namespaces of its own: ROOT USER; the variables and commands come from the files that
# config wrote.
run() {
    local root=$1 user=$2 work=$3 service i answer key
    local -a environment entry health inside
    mapfile -t environment <"$work/environment"
    mapfile -t entry <"$work/entry"
    mapfile -t health <"$work/health"
    ip link set lo up
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o "uid=${user%:*},gid=${user#*:}" tmpfs "$root/data"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -o remount,bind,ro "$root"
    inside=(env -i "${environment[@]}" chroot "$root" setpriv --reuid "${user%:*}"
        --regid "${user#*:}" --clear-groups --no-new-privs --bounding-set=-all)
    "${inside[@]}" id
    if "${inside[@]}" touch /srv/faceid/written 2>/dev/null; then fail "the root can be written to"; fi

    key=$("${inside[@]}" "${entry[0]}" keys create --scope admin 2>/dev/null)
    "${inside[@]}" "${entry[@]}" >"$work/log" 2>&1 &
    service=$!
    for ((i = 0; ; i++)); do
        if "${inside[@]}" "${health[@]:1}" 2>/dev/null; then break; fi
        ((i < 60)) || { cat "$work/log" >&2; fail "the health check never passed"; }
        sleep 0.5
    done
    echo "healthy"
    ask() { curl --silent --show-error --fail-with-body --header "X-API-Key: $key" "$@"; }
    ask -o /dev/null -F image=@tests/photos/grace_hopper.jpg \
        http://127.0.0.1:8000/persons/grace-hopper/faces
    ask -o /dev/null -F image=@tests/photos/astronaut.png \
        http://127.0.0.1:8000/persons/eileen-collins/faces
    answer=$(ask -F image=@tests/photos/group.jpg http://127.0.0.1:8000/identify)
    [[ $answer == *grace-hopper*eileen-collins* || $answer == *eileen-collins*grace-hopper* ]] ||
        fail "not found: $answer"
    echo "both persons found"
    if curl --silent --fail -o /dev/null http://127.0.0.1:8000/persons; then fail "no key asked for"; fi
    kill "$service"
    wait "$service" || fail "it did not end cleanly"
    if "${inside[@]}" "${health[@]:1}" 2>/dev/null; then fail "healthy without a service"; fi
}

echo "== a base of Debian's packages, in place of python:3.11-slim"
make_base
echo "== every step of the Dockerfile"
build .
echo "== once more, after a change of the code"
mkdir "$work/changed"
cp -r app deploy LICENSE "$work/changed"
echo "# changed" >>"$work/changed/app/main.py"
build "$work/changed"

echo "== what is in it"
root=$(buildah mount "$(buildah from "$image")")
du -sh "$root/opt/faceid" "$root/srv/faceid" | sed "s|$root||"
for unwanted in "$root"/usr/bin/{gcc,cc,make} "$root"/opt/faceid/lib/python3.11/site-packages/torch; do
    [[ ! -e $unwanted ]] || fail "this has no business there: ${unwanted#"$root"}"
done
labels=$(config '{{range $key, $value := .Docker.Config.Labels}}{{$key}}={{$value}}{{println}}{{end}}')
for label in 'version=[0-9.]+' 'revision=[0-9a-f]{40}'; do
    grep -E "image\.$label\$" <<<"$labels" || fail "no label $label"
done
user=$(config '{{.Docker.Config.User}}')
[[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]] || fail "user $user"
config '{{range .Docker.Config.Env}}{{println .}}{{end}}' >"$work/environment"
config '{{range .Docker.Config.Entrypoint}}{{println .}}{{end}}{{range .Docker.Config.Cmd}}{{println .}}{{end}}' >"$work/entry"
config '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' >"$work/health"

echo "== as user $user, on a read-only root, without capabilities"
export -f run fail
unshare --mount --net bash -euo pipefail -c 'run "$@"' run "$root" "$user" "$work"
