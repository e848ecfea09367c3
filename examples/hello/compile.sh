#!/bin/sh
# Writes a program that greets: the words come from greetings/NAME.txt.
set -eu
words=$(cat "greetings/$1.txt")
cat <<EOF
#!/bin/sh
echo "$words, \$1! (built and published by \${GREETED_BY:-nobody}, running as \$(whoami))"
EOF
