package adapter

import "strings"

// apply replaces the part of a key that the pattern matches.
func (r rename) apply(key string) (string, bool) {
	r, ok := r.numbered(key)
	if !ok {
		return key, false
	}
	from, begin := strings.CutPrefix(r.from, "^")
	from, end := strings.CutSuffix(from, "$")
	switch {
	case begin && end:
		return r.to, key == from
	case begin:
		tail, ok := strings.CutPrefix(key, from)
		return r.to + tail, ok
	case end:
		head, ok := strings.CutSuffix(key, from)
		return head + r.to, ok
	}
	return strings.ReplaceAll(key, from, r.to), strings.Contains(key, from)
}

// numbered replaces the "*" of a rename by the number that the key has there.
func (r rename) numbered(key string) (rename, bool) {
	head, _, star := strings.Cut(strings.TrimPrefix(r.from, "^"), "*")
	if !star {
		return r, true
	}
	i := strings.Index(key, head)
	if i < 0 {
		return r, false
	}
	digits := key[i+len(head):]
	_, rest, ok := number(digits)
	digits = digits[:len(digits)-len(rest)]
	return rename{
		strings.Replace(r.from, "*", digits, 1), strings.Replace(r.to, "*", digits, 1),
	}, ok
}

// back is the rename the other way.
func (r rename) back() rename {
	from, to := r.to, r.from
	if t, ok := strings.CutPrefix(to, "^"); ok {
		from, to = "^"+from, t
	}
	if t, ok := strings.CutSuffix(to, "$"); ok {
		from, to = from+"$", t
	}
	return rename{from, to}
}

// firstOf applies the first rename that fits.
func firstOf(all []rename, key string) string {
	for _, r := range all {
		if to, ok := r.apply(key); ok {
			return to
		}
	}
	return key
}

// reversed gives the renames that undo others.
func reversed(all []rename) []rename {
	back := make([]rename, len(all))
	for i, r := range all {
		back[i] = r.back()
	}
	return back
}

// matches reports whether a key fits the drop's pattern.
func (d drop) matches(key string) bool {
	_, ok := rename{from: d.key}.apply(key)
	return ok
}
