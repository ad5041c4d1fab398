# Shared by the scripts: where things are, and how to install what is missing. Sourced, not run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/countersign
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export CLIPPY_CONF_DIR=$PWD/scripts
export PATH=$HOME/.cargo/bin:$PATH
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
    need_packages build-essential cmake libclang-dev pkg-config ca-certificates curl
    need_rust
}

need_services() {
    need_packages docker-registry skopeo umoci python3 python3-venv curl
}

build() {
    say "building (the first build compiles RocksDB: 15 to 25 minutes on two cores; later ones take a minute or two)"
    cargo build --release --locked --bin countersign
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
