package adapter

import "testing"

func TestRenames(t *testing.T) {
	for _, test := range []struct {
		r        rename
		key, to  string
		reversed string // what going back gives; empty: the key
	}{
		{rename{".a.", ".b."}, "x.a.y.a.z", "x.b.y.b.z", ""},
		{rename{"^model.", ""}, "model.model.x", "model.x", "-"},
		{rename{"^a.", "b."}, "a.a.x", "b.a.x", ""},
		{rename{".w$", ".v"}, "a.w.w", "a.w.v", ""},
		{rename{"^a.w$", "c"}, "a.w", "c", ""},
		{rename{"^layers.*.a.", "model.layers.*.b."}, "layers.61.a.w", "model.layers.61.b.w", ""},
		{rename{"^layers.*.a$", "model.layers.*.b"}, "layers.0.a", "model.layers.0.b", ""},
		{rename{".layers.*.a.", ".layers.*.b."}, "x.layers.007.a.w", "x.layers.007.b.w", ""},
	} {
		to, ok := test.r.apply(test.key)
		if !ok || to != test.to {
			t.Errorf("%v on %q = %q, %v, want %q", test.r, test.key, to, ok, test.to)
		}
		if test.reversed == "-" {
			continue
		}
		if back, ok := test.r.back().apply(to); !ok || back != test.key {
			t.Errorf("%v back on %q = %q, %v, want %q", test.r, to, back, ok, test.key)
		}
	}
	for _, test := range []struct {
		r   rename
		key string
	}{
		{rename{"^a.", "b."}, "x.a.y"},
		{rename{".w$", ".v"}, "x.w.y"},
		{rename{"^a$", "b"}, "aa"},
		{rename{".a.", ".b."}, "x.aa.y"},
		{rename{"^layers.*.a.", "m.*.b."}, "x.layers.1.a.w"},
		{rename{"^layers.*.a.", "m.*.b."}, "layers.x.a.w"},
		{rename{"^layers.*.a.", "m.*.b."}, "layers.1.x.a.w"},
		{rename{"^layers.*.a$", "m.*.b"}, "layers.1.a.w"},
	} {
		if _, ok := test.r.apply(test.key); ok {
			t.Errorf("%v applies to %q", test.r, test.key)
		}
	}
}

func TestDropPatterns(t *testing.T) {
	d := drop{key: "layers.*.embed_tokens.weight$"}
	for key, want := range map[string]bool{
		"model.layers.61.embed_tokens.weight": true,
		"model.layers.x.embed_tokens.weight":  false,
		"model.embed_tokens.weight":           false,
		"model.layers.61.embed_tokens":        false,
	} {
		if d.matches(key) != want {
			t.Errorf("%v matches %q = %v", d, key, !want)
		}
	}
	if d := (drop{key: "^model.mtp_"}); !d.matches("model.mtp_x") || d.matches("x.model.mtp_x") {
		t.Errorf("%v does not match what begins so", d)
	}
}
