/**
 * Returns whether a text matches a shell pattern as a whole: `*` stands for any run of characters,
 * slashes and dots included, `?` for one, `[abc]`, `[a-z]` and `[!a]` for one of a set; a backslash
 * takes away the meaning of the next character.
 */
export function matchesGlob(pattern: string, text: string): boolean {
  const source = pattern
    // A run of stars would only cost time.
    .replace(/\*+/g, '*')
    .replace(TOKEN, (token, set: string | undefined, escaped: string | undefined) => {
      if (token === '*') return '.*';
      if (token === '?') return '.';
      if (set !== undefined) return `[${set.replace(/^!/, '^').replace(/[\\[\]]/g, '\\$&')}]`;
      return (escaped ?? token).replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
    });
  try {
    return new RegExp(`^${source}$`, 'su').test(text);
  } catch {
    // A set that ends before it begins, like [z-a].
    return pattern === text;
  }
}

const TOKEN = /\*|\?|\[([^\]]+)\]|\\(.)|./gsu;
