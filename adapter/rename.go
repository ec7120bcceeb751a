package adapter

import "strings"

// apply replaces the part of a key that the pattern matches.
func (r rename) apply(key string) (string, bool) {
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

// matches reports whether a key fits the drop's pattern. A "*" in it matches a layer's number.
func (d drop) matches(key string) bool {
	head, tail, star := strings.Cut(d.key, "*")
	if !star {
		_, ok := rename{from: d.key}.apply(key)
		return ok
	}
	i := strings.Index(key, head)
	if i < 0 {
		return false
	}
	_, rest, ok := number(key[i+len(head):])
	if !ok {
		return false
	}
	_, ok = rename{from: "^" + tail}.apply(rest)
	return ok
}
