#!/bin/sh
# Makes the keys that `docker compose up` wants, each once; what is there already stays.
set -eu
cd "$(dirname "$0")/.."
umask 077
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

[ -f .env ] || cp .env.example .env
chmod 600 .env
if ! grep -q '^FACEID_STORE__API_KEY=..*' .env; then
    sed "s/^FACEID_STORE__API_KEY=.*/FACEID_STORE__API_KEY=$(random)/" .env >.env.new
    grep -q '^FACEID_STORE__API_KEY=..*' .env.new || echo "FACEID_STORE__API_KEY=$(random)" >>.env.new
    mv .env.new .env
    echo "made the key of the Qdrant server, in .env"
fi

mkdir -p deploy/secrets
if [ ! -s deploy/secrets/grafana_password ]; then
    random >deploy/secrets/grafana_password
    # Grafana reads it as a user of its own; the folder keeps everybody else out.
    chmod 644 deploy/secrets/grafana_password
    echo "made Grafana's password (user admin), in deploy/secrets/grafana_password"
fi
