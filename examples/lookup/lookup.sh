#!/bin/sh
# Prints a service of the zone now and after each change, with nothing but curl.
#   lookup.sh SERVICE          the registry is in MAMMOTH_REGISTRY
set -eu
service=$1
index=0
while :; do
    # The answer comes as soon as the service is newer than the index, or after 30 s as it is.
    if answer=$(curl -fsS "$MAMMOTH_REGISTRY/v1/registry/services/$service?index=$index&wait=30s"); then
        new=$(printf '%s' "$answer" | sed -n 's/.*"index": *"\([0-9]*\)".*/\1/p')
        [ "$new" = "$index" ] || printf '%s\n' "$answer"
        index=$new
    else
        # It is away, or there is no such service yet.
        sleep 1
    fi
done
