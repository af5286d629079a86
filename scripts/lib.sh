# shellcheck shell=bash
# Functions of scripts/run and scripts/test: set-up inside the checkout, with progress and logs.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$ROOT/.cache
LOGS=$CACHE/logs
VENV=$ROOT/.venv
# How long a silent step may take before another line says that it is still running, seconds.
HEARTBEAT=15
# What is installed beside the wheel; pip chooses the versions.
LITELLM=("litellm[proxy]" gunicorn)

export PIP_DISABLE_PIP_VERSION_CHECK=1
# A path of the surrounding shell could hide the installed wheel behind the checkout.
unset PYTHONPATH PYTHONHOME

mkdir -p "$LOGS"

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# Usage errors: what is wrong, then where help is.
misuse() {
    printf 'error: %s\n       try: bash scripts/%s --help\n' "$1" "$(basename "$0")" >&2
    exit 2
}

# ---- Steps ----------------------------------------------------------------------------------------

# Process groups of steps under way; whoever ends the script ends them too.
RUNNING=()

stop_running() {
    local group
    for group in "${RUNNING[@]}"; do
        kill -TERM -- "-$group" 2>/dev/null
    done
    RUNNING=()
}
trap stop_running EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# log_of DESCRIPTION: the log file of a step.
log_of() { printf '%s/%s.log' "$LOGS" "$(printf '%s' "$1" | tr -cs 'A-Za-z0-9.' '-' | sed 's/-$//')"; }

# show_tail FILE: the end of a log, indented.
show_tail() {
    say "  the last lines of ${1#"$ROOT"/}:"
    tail -n 30 "$1" | sed 's/^/  | /'
}

# in_background LOG COMMAND...: starts it in a process group of its own; the group is in $!.
in_background() {
    local log=$1
    shift
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    set +m
    RUNNING+=("$!")
}

# finished GROUP: takes it off the list and returns the exit code of its command.
finished() {
    local group kept=() code=0
    wait "$1" || code=$?
    for group in "${RUNNING[@]}"; do
        [ "$group" = "$1" ] || kept+=("$group")
    done
    RUNNING=("${kept[@]}")
    return "$code"
}

# progress SECONDS TEXT: one changing line on a terminal, else a line now and then.
progress() {
    if [ -t 1 ]; then
        printf '\r\033[K  ...  %s (%ss)' "$2" "$1"
    elif [ "$1" -ge "$NEXT_BEAT" ]; then
        NEXT_BEAT=$((NEXT_BEAT + HEARTBEAT))
        printf '  ...  %s (%ss)\n' "$2" "$1"
    fi
}

# conclude MARK SECONDS TEXT: the line that stays.
conclude() {
    if [ -t 1 ]; then printf '\r\033[K'; fi
    printf '  %-4s %s (%ss)\n' "$1" "$3" "$2"
}

# steps DESCRIPTION COMMAND [DESCRIPTION COMMAND]...: runs them side by side and waits for all of them;
# fails when one of them does. A COMMAND is one word: a function or a program.
steps() {
    local names=() groups=() begun=$SECONDS failed=0 i waiting
    NEXT_BEAT=0
    while [ $# -gt 0 ]; do
        names+=("$1")
        in_background "$(log_of "$1")" "$2"
        groups+=("$!")
        shift 2
    done
    while [ ${#groups[@]} -gt 0 ]; do
        waiting=""
        for i in "${!groups[@]}"; do
            if kill -0 "${groups[i]}" 2>/dev/null; then
                waiting="${waiting:+$waiting; }${names[i]}"
                continue
            fi
            if finished "${groups[i]}"; then
                conclude ok $((SECONDS - begun)) "${names[i]}"
            else
                conclude FAIL $((SECONDS - begun)) "${names[i]}"
                show_tail "$(log_of "${names[i]}")"
                failed=1
            fi
            unset 'groups[i]'
        done
        [ -z "$waiting" ] || { progress $((SECONDS - begun)) "$waiting" && sleep 0.3; }
    done
    return "$failed"
}

# ---- What the machine has -------------------------------------------------------------------------

check_platform() {
    [ "$(uname -s)" = Linux ] || die "this needs Linux (memfd and /proc); here is $(uname -s)" \
        "on another system, run it in a Linux container"
}

# check_cargo: puts cargo on the PATH, or tells how to get it.
check_cargo() {
    local have want
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null || die "cargo was not found: the extension is written in Rust" \
        "install Rust with rustup (https://rustup.rs), then start this again"
    have=$(cd "$ROOT" && cargo --version 2>&1 | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    want=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    [ -n "$have" ] || die "cargo does not run: $(cd "$ROOT" && cargo --version 2>&1 | head -n 1)" \
        "install a toolchain with: rustup default stable"
    [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
        die "Rust $want or newer is needed; found $have" "update it with: rustup update"
    command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
        die "Rust needs a C linker (cc), and none was found" \
            "install one, e.g. with: apt-get install build-essential"
}

# check_python: sets PYTHON to an interpreter that is new enough and can make environments.
check_python() {
    local candidate version seen="" wanted="python3 python python3.13 python3.12 python3.11 python3.10 python3.14"
    PYTHON_ASKED=${PYTHON:-}
    [ -z "$PYTHON_ASKED" ] || wanted=$PYTHON_ASKED
    for candidate in $wanted; do
        version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null ||
                die "$candidate ($version) cannot make virtual environments" \
                    "install its venv module, e.g. with: apt-get install python3-venv"
            PYTHON=$candidate
            return
        fi
        seen="${seen:+$seen, }$candidate is $version"
    done
    [ -z "$PYTHON_ASKED" ] || [ -n "$seen" ] || seen="PYTHON=$PYTHON_ASKED does not run"
    die "Python 3.10 or newer was not found${seen:+ ($seen)}" \
        "install one, or name one that is not on the PATH: PYTHON=/path/to/python3 bash scripts/$(basename "$0")"
}

# ---- Set-up ---------------------------------------------------------------------------------------

# One set-up of a checkout at a time: two would write the same environment.
lock_checkout() {
    command -v flock >/dev/null || return 0
    exec 9>"$CACHE/lock"
    if ! flock -n 9; then
        say "waiting for another set-up of this checkout to finish"
        flock 9
    fi
}

unlock_checkout() { exec 9>&-; }

# hash_of TEXT...: a fingerprint.
hash_of() { printf '%s\0' "$@" | sha256sum | cut -c1-32; }

# wheel_hash: the fingerprint of everything that goes into the wheel.
wheel_hash() {
    (cd "$ROOT" && find Cargo.toml Cargo.lock pyproject.toml src fast_litellm -type f \
        ! -name '*.pyc' ! -name '*.so' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32)
}

# stamped FILE HASH: whether the step of that stamp has been done with these inputs.
stamped() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

# venv_works DIRECTORY: whether it is an environment made here, and of the Python that was asked for.
venv_works() {
    stamped "$1/.made" "$1" && "$1/bin/python" -c '' 2>/dev/null || return
    [ -z "$PYTHON_ASKED" ] || [ "$(minor_of "$1/bin/python")" = "$(minor_of "$PYTHON")" ]
}

minor_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# make_venv DIRECTORY: an environment; what is there is replaced when it does not work.
make_venv() {
    venv_works "$1" && return
    "$PYTHON" -m venv --clear "$1" && printf '%s' "$1" >"$1/.made"
}

# pip_install DIRECTORY STAMP ARGUMENT...: installs once; again when the arguments change.
pip_install() {
    local directory=$1 name=$2 stamp
    shift 2
    stamp=$(hash_of "$@")
    stamped "$directory/.$name" "$stamp" && return
    "$directory/bin/python" -m pip install "$@" && printf '%s' "$stamp" >"$directory/.$name"
}

# build_wheel: the wheel of the checkout, in .cache/wheel. Needs .venv for its pip.
build_wheel() {
    local hash
    hash=$(wheel_hash)
    stamped "$CACHE/wheel/hash" "$hash" && [ -n "$(ls "$CACHE"/wheel/*.whl 2>/dev/null)" ] && return
    rm -rf "$CACHE/wheel"
    (cd "$CACHE" && "$VENV/bin/python" -m pip wheel --no-deps -w "$CACHE/wheel" "$ROOT") &&
        printf '%s' "$hash" >"$CACHE/wheel/hash"
}

# install_wheel DIRECTORY: what build_wheel has made, into that environment.
install_wheel() {
    local hash
    hash=$(cat "$CACHE/wheel/hash")
    stamped "$1/.wheel" "$hash" && return
    "$1/bin/python" -m pip install --no-deps --force-reinstall "$CACHE"/wheel/*.whl &&
        printf '%s' "$hash" >"$1/.wheel"
}

make_main_venv() { make_venv "$VENV"; }
install_litellm() { pip_install "$VENV" litellm "${LITELLM[@]}"; }
install_main_wheel() { install_wheel "$VENV"; }

# up_to_date: whether .venv holds LiteLLM and the wheel of these very sources.
up_to_date() {
    venv_works "$VENV" && stamped "$VENV/.litellm" "$(hash_of "${LITELLM[@]}")" &&
        stamped "$VENV/.wheel" "$(wheel_hash)"
}

# set_up: .venv with LiteLLM and the wheel of the checkout.
set_up() {
    if up_to_date; then
        say "set-up: up to date"
        return
    fi
    say "set-up (the first time takes a few minutes; logs in ${LOGS#"$ROOT"/}/)"
    lock_checkout
    steps "make the environment .venv" make_main_venv || return
    steps "build the extension (Rust)" build_wheel "install LiteLLM's proxy and gunicorn" install_litellm || return
    steps "install the wheel" install_main_wheel || return
    unlock_checkout
}
