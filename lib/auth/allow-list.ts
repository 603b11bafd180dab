/**
 * Whether one of `patterns` matches all of `text`, as libvirt matches tls_allowed_dn_list and
 * sasl_allowed_username_list: `*` is any run of characters, `?` any one character, everything else,
 * brackets and backslashes too, itself (GLib's g_pattern_match_simple). Case matters. An empty list
 * matches nothing.
 */
export function matchesAny(patterns: readonly string[], text: string): boolean {
  const characters = Array.from(text);
  return patterns.some((pattern) => matches(Array.from(pattern), characters));
}

/**
 * Goes back to the last star only: taking more for an earlier one cannot help. So the steps are
 * bounded by the product of the lengths, whatever the pattern.
 */
function matches(pattern: readonly string[], text: readonly string[]): boolean {
  let at = 0;
  let star = -1;
  let starText = 0;
  let index = 0;
  while (index < text.length) {
    if (pattern[at] === '*') {
      star = at;
      starText = index;
      at += 1;
    } else if (at < pattern.length && (pattern[at] === '?' || pattern[at] === text[index])) {
      at += 1;
      index += 1;
    } else if (star >= 0) {
      starText += 1;
      index = starText;
      at = star + 1;
    } else {
      return false;
    }
  }
  while (pattern[at] === '*') at += 1;
  return at === pattern.length;
}
