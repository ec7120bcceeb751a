package adapter

import (
	"slices"
	"strings"
	"testing"
)

func TestFamilyTable(t *testing.T) {
	names, types := map[string]bool{}, map[[3]string]string{}
	for _, f := range families {
		if f.name == "" || names[f.name] {
			t.Errorf("row %q: name empty or twice", f.name)
		}
		names[f.name] = true
		if len(f.types) == 0 {
			t.Errorf("%s: no model_type", f.name)
		}
		for _, m := range f.types {
			for _, a := range append(f.architectures, "") {
				if other, ok := types[[3]string{m, "", f.inside}]; ok {
					t.Errorf("%s: model_type %s is %s's already", f.name, m, other)
				}
				if a != "" || len(f.architectures) == 0 {
					types[[3]string{m, a, f.inside}] = f.name
				}
			}
		}
		if f.experts != nil {
			lintExperts(t, f)
		}
		seen := map[string]bool{}
		for _, v := range f.views {
			if _, ok := layoutNamed(v.layout); !ok || v.layout == LayoutHF {
				t.Errorf("%s: layout %q unknown or hf", f.name, v.layout)
			}
			types := v.types
			if len(types) == 0 {
				types = f.types
			}
			for _, m := range types {
				if seen[v.layout+" of "+m] {
					t.Errorf("%s: layout %s of %s twice", f.name, v.layout, m)
				}
				seen[v.layout+" of "+m] = true
			}
			lintView(t, f, v)
		}
	}
}

func lintExperts(t *testing.T, f family) {
	t.Helper()
	x := f.experts
	if !strings.HasSuffix(x.path, ".") || len(x.count) == 0 {
		t.Errorf("%s: experts' path %q without its dot, or no field of their number", f.name,
			x.path)
	}
	for i, p := range x.proj {
		if len(x.groups) > 0 && !x.isSplit() {
			break
		}
		if p == "" || slices.Index(x.proj[:], p) != i {
			t.Errorf("%s: projection %q empty or twice", f.name, p)
		}
	}
	if x.grouped != "" {
		if l, ok := layoutNamed(x.grouped); !ok || len(x.groupsIn(l)) == 0 {
			t.Errorf("%s: grouped layout %q", f.name, x.grouped)
		}
	}
}

func lintView(t *testing.T, f family, v view) {
	t.Helper()
	if v.path != "" && !strings.HasSuffix(v.path, ".") {
		t.Errorf("%s, %s: path %q without its dot", f.name, v.layout, v.path)
	}
	for _, list := range [][]rename{v.prefixes, v.renames} {
		for i, r := range list {
			every := r.from == "^" && i == len(list)-1
			if strings.Trim(r.from, "^$") == "" && !every || strings.Trim(r.from, "^$") == r.to {
				t.Errorf("%s, %s: rename %v does nothing", f.name, v.layout, r)
			}
			for _, before := range list[:i] {
				key := strings.ReplaceAll(strings.Trim(r.from, "^$"), "*", "7")
				if _, ok := before.apply(key); ok {
					t.Errorf("%s, %s: rename %v never applies, %v does before", f.name, v.layout, r,
						before)
				}
			}
		}
	}
	for _, d := range v.drops {
		if d.key == "" || d.reason == "" {
			t.Errorf("%s, %s: drop %v without key or reason", f.name, v.layout, d)
		}
	}
}

// Going to native and back must give the published key, or a native source cannot
// be shown as published.
func TestNativeNamesGoBack(t *testing.T) {
	keys := []string{
		"lm_head.weight", "model.norm.weight", "model.embed_tokens.weight", "model.word_embeddings.weight",
		"language_model.lm_head.weight", "language_model.model.layers.1.self_attn.q_proj.weight",
		"vision_tower.x.weight", "multi_modal_projector.linear_1.weight", "mtp.fc.weight", "mtp.norm.weight",
		"model.layers.1.mlp.gate.weight", "model.layers.1.mlp.router.gate.weight", "model.layers.1.mlp.expert_bias",
		"model.layers.1.mlp.shared_mlp.up_proj.weight", "model.layers.1.mlp.shared_expert.up_proj.weight",
		"model.layers.1.mlp.shared_expert_gate.weight", "model.layers.1.block_sparse_moe.gate.weight",
		"model.layers.1.block_sparse_moe.e_score_correction_bias", "model.layers.1.linear_attn.A_log",
		"model.layers.1.mlp.moe_statics.e_score_correction_bias", "model.layers.1.attention.dense.weight",
		"model.layers.1.attention.query_layernorm.weight", "model.layers.1.mlp.gate.expert_bias",
	}
	for _, f := range families {
		v, ok := f.viewNamed(LayoutNative)
		if !ok {
			continue
		}
		for _, key := range keys {
			if !publishes(f.name, key) {
				continue
			}
			to := firstOf(v.renames, firstOf(v.prefixes, key))
			if to == key {
				continue
			}
			if back := firstOf(reversed(v.prefixes),
				firstOf(reversed(v.renames), to)); back != key {
				t.Errorf("%s: %s becomes %s and then %s", f.name, key, to, back)
			}
		}
	}
}

// publishes reports whether checkpoints of a family may have a key. Some have all keys of the
// language model below "language_model.", or call the projector otherwise.
func publishes(family, key string) bool {
	switch family {
	case "kimi_k25":
		return !strings.HasPrefix(key, "multi_modal_projector.")
	case "kimi_k3", "minimax_m3_vl":
		return !strings.HasPrefix(key, "model.") && !strings.HasPrefix(key, "lm_head.")
	}
	return true
}

func TestLayoutTable(t *testing.T) {
	names := map[string]bool{}
	for _, l := range KnownLayouts() {
		if l.Name == "" || names[l.Name] || l.Readers == "" || l.Plans < 1 {
			t.Errorf("%q: name empty or twice, no readers, or counted as nothing", l.Name)
		}
		names[l.Name] = true
		if found, ok := LayoutNamed(l.Name); !ok || found.Name != l.Name {
			t.Errorf("%s: not found by its name", l.Name)
		}
		seen := map[role]bool{}
		for _, g := range l.groups {
			for _, r := range g.parts {
				if seen[r] {
					t.Errorf("%s: %s twice", l.Name, r)
				}
				seen[r] = true
			}
		}
		if len(l.groups) > 0 && len(seen) != int(roles) {
			t.Errorf("%s: has %v, want every projection", l.Name, seen)
		}
	}
	if _, ok := LayoutNamed("gguf"); ok {
		t.Error("found a layout that is not in the table")
	}
}
