#!/bin/sh
# Keeps an endpoint of the app's own registered until the script is ended, and then takes it out.
#   register.sh SERVICE ID ADDRESS PORT [KEY=VALUE]
# MAMMOTH_REGISTRY holds the registry and the app's key, http://APP:KEY@host:port; curl shows the key by itself.
set -eu
service=$1 id=$2 address=$3 port=$4 pair=${5:-}
url=$MAMMOTH_REGISTRY/v1/registry/services/$service/endpoints/$id
values='{}'
[ -z "$pair" ] || values="{\"${pair%%=*}\": \"${pair#*=}\"}"
trap 'curl -fsS -o /dev/null -X DELETE "$url"; exit 0' INT TERM
while :; do
    curl -fsS -o /dev/null -X PUT "$url" \
        -d "{\"address\": \"$address\", \"port\": $port, \"values\": $values, \"lease\": \"10s\"}" || true
    sleep 3 &
    wait $!
done
