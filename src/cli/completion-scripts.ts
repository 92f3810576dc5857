import { UsageError } from './failure.js';

/** A completion script begins its question with it. */
export const COMPLETION_OPTION = '--get-completions';

/**
 * bash takes a word apart at the characters of COMP_WORDBREAKS, of which names of images have some,
 * and replaces only the last part: the parts before it are cut off from what is offered.
 */
const BASH = `# zpull completion for bash. To use it: zpull completion bash >> ~/.bashrc
_zpull() {
  local line="\${COMP_LINE:0:COMP_POINT}" words current tail separator candidate about nospace=1
  read -a words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current="\${words[\${#words[@]} - 1]}"
  tail="$current"
  for separator in : = @; do
    [[ $COMP_WORDBREAKS == *"$separator"* ]] && tail="\${tail##*"$separator"}"
  done
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate about; do
    [[ $candidate == *[:=/] ]] || nospace=0
    candidate="\${candidate#"\${current%"$tail"}"}"
    [[ $candidate == *[^[:alnum:]_./:=@~+,%-]* ]] && printf -v candidate %q "$candidate"
    COMPREPLY+=("$candidate")
  done < <("\${words[0]}" ${COMPLETION_OPTION} "\${words[@]:1}" 2>/dev/null)
  [[ $nospace == 1 ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -F _zpull zpull
`;

const ZSH = `#compdef zpull
# zpull completion for zsh. To use it: zpull completion zsh > a directory of $fpath/_zpull, or
# source <(zpull completion zsh) in ~/.zshrc behind compinit
_zpull() {
  local -a whole=() parts=()
  local candidate about
  while IFS=$'\\t' read -r candidate about; do
    if [[ $candidate == *[:=/] ]]; then parts+=("$candidate")
    else whole+=("\${candidate//:/\\\\:}\${about:+:$about}")
    fi
  done < <("\${words[1]}" ${COMPLETION_OPTION} "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)
  (( \${#parts} )) && compadd -S '' -- "\${parts[@]}"
  (( \${#whole} )) && _describe 'zpull' whole
  return 0
}
if [[ \${funcstack[1]} == _zpull ]]; then _zpull "$@"
else compdef _zpull zpull
fi
`;

const FISH = `# zpull completion for fish. To use it: zpull completion fish > ~/.config/fish/completions/zpull.fish
function __zpull_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] ${COMPLETION_OPTION} $words[2..-1] 2>/dev/null
end
complete -c zpull -f -a '(__zpull_complete)'
`;

const SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

export const SHELLS = Object.keys(SCRIPTS);

/**
 * The completion script of a shell, by its name, else by the path in $SHELL.
 * @throws UsageError where $SHELL is another one
 */
export function completionScript(shell: string | undefined, env: NodeJS.ProcessEnv): string {
  const name = shell ?? (env['SHELL'] ?? 'bash').replace(/^.*\//, '');
  const script = SCRIPTS[name];
  if (script !== undefined) return script;
  throw new UsageError(
    `zpull has no completion for ${name}`,
    `write zpull completion ${SHELLS.join(' or ')}`,
  );
}
