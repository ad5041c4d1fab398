# Shared by the scripts: where things are, and how to install what is missing. Sourced, not run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/countersign
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export CLIPPY_CONF_DIR=$PWD/scripts
export PATH=$PWD/scripts/compiler:$HOME/.cargo/bin:$PATH
binary=$CARGO_TARGET_DIR/release/countersign

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages that are missing; says which, and does nothing when all are there.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "these Debian packages are needed: ${missing[*]}"
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# A Rust toolchain that is new enough; where there is none, rustup (from crates' own distribution) is asked for it.
need_rust() {
    local wanted=1.91 found
    found=$(cargo --version 2>/dev/null | awk '{print $2}')
    if [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ]; then return; fi
    command -v rustup >/dev/null || need_packages rustup 2>/dev/null || true
    command -v rustup >/dev/null || die "Rust $wanted or newer is needed (found: ${found:-none}); install rustup, then run this again"
    rustup toolchain install stable --profile minimal --component clippy --component rustfmt
    rustup default stable
}

need_build_tools() {
    need_packages build-essential clang cmake libclang-dev pkg-config ca-certificates curl
    need_rust
}

need_services() {
    need_packages docker-registry skopeo umoci python3 python3-venv curl
}

build() {
    say "building (the first build compiles RocksDB: 15 to 20 minutes on two cores; later ones some minutes)"
    cargo build --release --locked --bin countersign
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A scratch directory (arguments are those of mktemp -d), free ports in it, and the end of everything at exit.
scratch() {
    work=$(mktemp -d "$@")
    registry_pid= service_pid=
    trap cleanup EXIT
    public_port=$(free_port) webhook_port=$(free_port) operations_port=$(free_port) registry=127.0.0.1:$(free_port)
    export COUNTERSIGN_SERVER=https://localhost:$public_port COUNTERSIGN_CA_FILE=$work/data/keys/tls-ca.pem
}

cleanup() {
    [ -z "$service_pid" ] || kill "$service_pid" 2>/dev/null || true
    [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}

issue_clients() { # issue_clients HOST NAME...: a client certificate for spiffe://HOST/NAME each
    host=$1
    shift
    local name
    for name in "$@"; do
        "$binary" trust issue-client "spiffe://$host/$name" --data "$work/data" --kek-file "$work/kek" \
            --out "$work/clients" --days 1 >/dev/null
    done
}

as() { # as NAME: whose client certificate the next commands use
    export COUNTERSIGN_CLIENT_CERT=$work/clients/$host-$1.pem COUNTERSIGN_CLIENT_KEY=$work/clients/$host-$1.key
}

# write_config NAME ROLES NAME ROLES ...: the configuration of service and registry, and who may do what. ROLES is a
# TOML list without its brackets. The policy is expected in $work/policy.yaml.
write_config() {
    cat >"$work/countersign.toml" <<CONFIG
data = "$work/data"
[listen]
public = "127.0.0.1:$public_port"
webhook = "127.0.0.1:$webhook_port"
operations = "127.0.0.1:$operations_port"
[kek]
file = "$work/kek"
[policy]
file = "$work/policy.yaml"
[registry]
plain_http = ["$registry"]
[identity]
mtls_issuer = "https://$host/clients"
CONFIG
    while [ $# -gt 0 ]; do
        cat >>"$work/countersign.toml" <<RULE
[[identity.rules]]
issuer = "https://$host/clients"
subject = "spiffe://$host/$1"
roles = [$2]
RULE
        shift 2
    done
    write_registry
}

write_registry() { # the configuration of the registry
    cat >"$work/registry.yml" <<REGISTRY
version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: $work/registry}
  delete: {enabled: true}
http: {addr: "$registry"}
REGISTRY
}

wait_for() { # wait_for URL CURL_ARGS...
    for _ in $(seq 200); do
        curl -fsS -o /dev/null "$@" 2>/dev/null && return
        sleep 0.1
    done
    die "no answer from $1; $(tail -n 5 "$work/service.log" 2>/dev/null)"
}

start_registry() {
    docker-registry serve "$work/registry.yml" >>"$work/registry.log" 2>&1 &
    registry_pid=$!
    wait_for "http://$registry/v2/"
}

stop_registry() {
    kill "$registry_pid"
    wait "$registry_pid" 2>/dev/null || true
    registry_pid=
}

start_service() {
    "$binary" serve --config "$work/countersign.toml" >>"$work/service.log" 2>&1 &
    service_pid=$!
    wait_for "http://127.0.0.1:$operations_port/readyz"
}

stop_service() {
    kill -TERM "$service_pid"
    wait "$service_pid" || die "serve did not drain cleanly"
    service_pid=
}

start_all() { # registry and service, on what write_config wrote
    start_registry
    start_service
}
