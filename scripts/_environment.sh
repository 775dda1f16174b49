# Makes sure that .venv holds the project and its tools; sourced by the scripts beside it, which then use "$python".
#
# Made once, and brought up to date only when pyproject.toml changes or the checkout moves: .venv/installed-from records
# both, and is written last, so that an installation that was cut off is repeated.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$PWD/.venv/bin/python"

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "No usable Python was found: 3.11 or newer is needed, with its venv and ensurepip modules" \
        "(on Debian and Ubuntu: apt-get install python3-venv). PYTHON=/path/to/python3 names one." >&2
    return 1
}

installed_from() {
    pwd
    cat pyproject.toml
}

ensure_environment() {
    if installed_from | cmp -s - .venv/installed-from && "$python" -c '' 2>/dev/null; then
        return
    fi
    echo "Installing the project and its tools into .venv (a minute or two, this once) ..." >&2
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        local base
        base=$(find_python)
        "$base" -m venv --clear .venv
    fi
    # Dependency groups need pip 25.1; -qq leaves only errors.
    "$python" -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
    "$python" -m pip install -qq --disable-pip-version-check --editable . --group dev
    installed_from >.venv/installed-from
}

ensure_environment
