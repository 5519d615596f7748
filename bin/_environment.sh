# Sourced by the commands beside it, never run by itself: gives the checkout a Python environment of its own.
#
# Promise: after `prepare_environment LOCKFILE…` the environment in .venv has what these files say, by hash, and is
# first on the PATH; or the command has ended with the name of the step that failed. Where nothing is to be done it
# costs a few hundredths of a second and says nothing. An environment whose making was cut off is never used, and of
# several runs at once one installs while the others wait. What package indexes have published since a lock file was
# written changes nothing.

checkout=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# `use_environment FOLDER` before `prepare_environment` means another one than .venv; FOLDER is a path in the checkout.
use_environment() {
    environment_folder=$1
    environment=$checkout/$environment_folder
    seal=$environment/complete       # its identity; written last, gone while anything is being installed
    installed=$environment/installed # copies of the lock files as they were installed
}
use_environment .venv

# Without compiled files each of the tests' some hundred processes would compile the application anew.
unset PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# The environment in Python's own words: other ones once the checkout has moved or its Python was replaced.
identity() {
    "$environment/bin/python" -c 'import sys; print(sys.prefix, *sys.version_info[:2])' 2>/dev/null
}

sealed() {
    [ -f "$seal" ] && [ "$(identity)" = "$(cat -- "$seal")" ]
}

up_to_date() {
    local file
    sealed || return 1
    for file; do
        cmp -s -- "$checkout/$file" "$installed/$file" || return 1
    done
}

# Every Python on the PATH that may serve, best first, but for the environment's own.
suitable_pythons() {
    local name python
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        type -aP "$name" || true
    done | while IFS= read -r python; do
        case $python in "$environment"/*) continue ;; esac
        if [ "$("$python" -c '
import ensurepip, sys, venv
print(sys.implementation.name == "cpython" and sys.version_info >= (3, 11))' 2>/dev/null </dev/null)" = True ]; then
            printf '%s\n' "$python"
        fi
    done
}

# A Python may have the modules and fail all the same, so each is tried until one has made an environment with pip.
make_environment() {
    local python output='' pythons=$1
    while IFS= read -r python <&3; do
        rm -rf -- "$environment"
        if output=$("$python" -m venv "$environment" 2>&1 </dev/null &&
            "$environment/bin/python" -m pip --version 2>&1 </dev/null); then
            return
        fi
    done 3<<<"$pythons"
    printf '%s\n' "$output" >&2
    fail "making $environment_folder failed"
}

# Held on the folder of this file until descriptor 9 is closed, by whoever is the last to have it: a killed run's pip
# keeps it until it has ended too. Locked by way of Python because not every system has a flock command.
take_lock() {
    exec 9<"$checkout/bin"
    "$1" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("waiting for another installation to end", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)' || fail "locking $environment_folder failed"
}

# A lock file is complete, so nothing is resolved: pip 23.0.1, Debian's, looks for the newest release of whatever a
# package names with an extra (coverage[toml]) and ends there, although the lock has one that fits. That the lock is
# complete, and fits together, is what `fits` asks afterwards.
install_locked() {
    local file output code=0 arguments=()
    for file; do
        arguments+=(-r "$checkout/$file")
    done
    rm -rf -- "$seal" "$installed"
    output=$("$environment/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --no-deps --require-hashes --only-binary :all: "${arguments[@]}" 2>&1 </dev/null) || code=$?
    # When pip says itself that it failed it has put back what it touched; when it was killed, it has not.
    if [ "$code" -lt 128 ]; then
        identity >"$seal.new" && mv -- "$seal.new" "$seal"
    fi
    if [ "$code" -ne 0 ]; then
        printf '%s\n' "$output" >&2
        fail "installing $* failed (pip ended with $code)"
    fi
}

# Whether everything in the environment has the packages that it asks for; what pip finds missing is in $misfits.
fits() {
    misfits=$("$environment/bin/python" -m pip check --disable-pip-version-check 2>&1 </dev/null)
}

# As a service's own user, who finds an environment that is another's, nothing is made, and nothing taken away.
installation="bash -c '. bin/_environment.sh && prepare_environment requirements.txt'"
may_change_environment() {
    [ -w "$checkout" ] && { [ ! -e "$environment" ] || [ -w "$environment" ]; }
}

note_installed() {
    local file
    for file; do
        mkdir -p -- "$(dirname -- "$installed/$file")" && cp -- "$checkout/$file" "$installed/$file"
    done
}

prepare_environment() {
    local pythons misfits is_new=''
    if ! up_to_date "$@"; then
        pythons=$(suitable_pythons)
        may_change_environment || fail "$environment_folder is not up to date, or its Python cannot be run by $(id -un), \
who may not change it; as its owner: rm -rf $environment, then $installation"
        [ -n "$pythons" ] ||
            fail 'no Python 3.11 or newer with the modules venv and ensurepip on the PATH (Debian: apt install python3-venv)'
        take_lock "${pythons%%$'\n'*}"
        if ! up_to_date "$@"; then
            printf '%s: installing %s into %s\n' "${0##*/}" "$*" "$environment_folder" >&2
            sealed || { make_environment "$pythons" && is_new=yes; }
            install_locked "$@"
            until fits; do
                if [ "$is_new" ]; then
                    printf '%s\n' "$misfits" >&2
                    fail "$* lack packages, or do not fit together (\`pip check\`)"
                fi
                # What does not fit may be what an earlier lock file has left there.
                make_environment "$pythons" && is_new=yes
                install_locked "$@"
            done
            note_installed "$@"
        fi
        exec 9<&-
    fi
    export VIRTUAL_ENV=$environment PATH=$environment/bin:$PATH
}
