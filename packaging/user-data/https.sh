# The URL may hold a signature. Other users can read arguments, but not standard input.
if command -v curl >/dev/null
  then printf 'url="%s"' @url@ | curl -gfsSLm 300 -K -
  else printf %s @url@ | python3 -Ic 'import sys,urllib.request as u;sys.stdout.buffer.write(u.urlopen(sys.stdin.read(),timeout=30).read())'
  fi
