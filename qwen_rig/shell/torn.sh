# shellcheck shell=sh
# What of an env's packages isn't as they were installed.

# Prints, in a site-packages, one line for each package of whose files (by its RECORD, PEP 376) one is absent or
# has another size: what two packages claim may be as either says; what pip writes beside a package is left out, so that
# of its metadata only what others read counts.
torn() {
  set +f; set -- *.dist-info/RECORD
  [ -e "$1" ] || return 0
  if find . -maxdepth 0 -printf ''; then find -L . -name __pycache__ -prune -o -type f -printf '%s %P\n'
  else find -L . -name __pycache__ -prune -o -type f -exec stat -L -c '%s %n' {} + | sed 's, \./, ,'; fi |
    awk -F, 'NR == FNR { has[$0] = ""; next }
      { sub(/\r$/, ""); if ($NF == "" || $NF ~ /[^0-9]/) next }
      { if (NF == 3) path = $1; else { path = $0; sub(/,[^,]*,[0-9]+$/, "", path) } }
      path ~ /^"/ { gsub(/^"|"$/, "", path); gsub(/""/, "\"", path) }
      { key = $NF " " path; if (key in has) { has[key] = 1; next } }
      path ~ /(^|\/)__pycache__\// { next } # compiled, and made again: the wheels of numpy bring some
      path ~ /^(\.\.?)?\// || (path ~ /\.dist-info\// && path !~ /\/(METADATA|entry_points\.txt)$/) { next }
      { owner = FILENAME; sub(/\/RECORD$/, "", owner); by[path] = by[path] owner "/"; how[path] = "absent"; wrong = 1 }
      END {
        if (!wrong) exit
        for (key in has) {
          path = substr(key, index(key, " ") + 1)
          if (path in by) { if (has[key]) delete by[path]; else how[path] = "size" }
        }
        for (path in by) {
          n = split(by[path], names, "/")
          for (i = 1; i < n; i++) if (!(names[i] in one) || path < one[names[i]]) one[names[i]] = path
        }
        for (name in one) printf "torn|%s|%s|%s\n", name, how[one[name]], one[name]
      }' - "$@"
}
