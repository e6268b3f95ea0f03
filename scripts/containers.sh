#!/usr/bin/env bash
# The images and the compose file as a user runs them: build, index the sample gallery, serve behind the proxy, query, take down.
#
# Uses Docker if its engine runs, else the program that CONTAINERS names, which must provide
# `build TAG FOLDER` and `compose ARGUMENTS...` over podman.
set -euo pipefail
cd "$(dirname "$0")/.."
export BUILDAH_FORMAT=docker BUILDAH_LAYERS=true COMPOSE_PROJECT_NAME=lookalike-check LOOKALIKE_IMAGE=lookalike:check LOOKALIKE_PROXY_IMAGE=lookalike-proxy:check PORT=${PORT:-18765} NETWORK=${NETWORK:-10.213.72}
unset PICTURES COLLECTION ENCODER ADDRESS

if docker info >/dev/null 2>&1; then
    engine=docker
    build() { docker build --quiet --tag "$1" . >/dev/null; }
    compose() { docker compose --file docker-compose.yml "$@"; }
elif [ -n "${CONTAINERS:-}" ]; then
    engine=podman
    build() { "$CONTAINERS" build "$1" .; }
    compose() { "$CONTAINERS" compose --file docker-compose.yml "$@"; }
else
    echo "No Docker engine runs. Start one, or name a replacement: make containers CONTAINERS=/path/to/script" >&2
    exit 1
fi

say() { printf '\n== %s\n' "$*"; }
inside() { compose exec -T "$@"; } # SERVICE COMMAND...
refuse() { # TEXT SERVICE COMMAND...: the command must fail inside the container
    local what=$1 && shift
    if inside "$@" >/dev/null 2>&1; then echo "the container allows $what" >&2 && return 1; fi
    echo "refused, as it should be: $what"
}
ready() { # SERVICE: its health check passes
    if [ "$engine" = podman ]; then podman healthcheck run "$(container "$1")" >/dev/null; return; fi
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]
}
wait_until_ready() { # SERVICE
    for _ in $(seq 120); do
        ready "$1" && echo "$1: healthy" && return
        sleep 1
    done
    echo "$1 does not get healthy" >&2
    return 1
}
replace() { # SERVICE: podman-compose would also recreate the proxy
    if [ "$engine" = podman ]; then podman restart --time 20 "$(container "$1")" >/dev/null 2>&1; return; fi
    compose up --detach --no-deps --force-recreate --wait "$1"
}
container() { "$engine" ps --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter "label=com.docker.compose.service=$1"; }
take_down() {
    status=$?
    trap - EXIT
    [ "$status" -eq 0 ] || compose logs lookalike-a lookalike-b proxy 2>&1 | tail -n 40 >&2 || true
    say "taking down"
    compose --profile index down --volumes >/dev/null 2>&1 || true
    exit "$status"
}

say "building (several minutes the first time)"
build "$LOOKALIKE_IMAGE"
compose build proxy >/dev/null
echo "image size: $("$engine" image inspect --format '{{.Size}}' "$LOOKALIKE_IMAGE" | awk '{ printf "%.2f GB", $1 / 1e9 }')"

trap take_down EXIT
say "indexing the sample gallery with the job"
compose --profile index run --rm index

say "serving on 127.0.0.1:$PORT"
compose up --detach lookalike-a lookalike-b proxy
python3 scripts/query_service.py --wait "http://127.0.0.1:$PORT"

say "permissions of the containers"
for service in lookalike-a lookalike-b proxy; do
    echo "$service: user $(inside "$service" id -u)"
    refuse "running as root" "$service" sh -c '[ "$(id -u)" -eq 0 ]'
    refuse "writing to its root file system" "$service" touch /usr/here
done
refuse "writing to the collections" lookalike-a touch /collections/here

say "three queries through the published port"
image=$(mktemp --suffix .png)
inside lookalike-a cat /pictures/chelsea.png >"$image"
python3 scripts/query_service.py "http://127.0.0.1:$PORT" --text "a cat" --image "$image" --expect chelsea
rm -f "$image"

say "limits of the proxy"
large=$(mktemp)
truncate --size 40M "$large"
answer=$(curl --silent --noproxy '*' --data-binary "@$large" "http://127.0.0.1:$PORT/v1/search/image")
rm -f "$large"
echo "$answer"
case $answer in *'"code":"body_too_large"'*) ;; *) exit 1 ;; esac

say "health checks"
for service in lookalike-a lookalike-b proxy; do wait_until_ready "$service"; done

say "both replicas replaced, one after the other, under queries"
python3 scripts/query_service.py "http://127.0.0.1:$PORT" --text "a cat" --until-stopped &
queries=$!
for replica in lookalike-a lookalike-b; do
    replace "$replica"
    wait_until_ready "$replica"
done
sleep 3
kill -TERM "$queries"
wait "$queries"
