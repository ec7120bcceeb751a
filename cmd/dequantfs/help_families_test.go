package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
)

// rowOf returns the row of the page that names a model of a family and has its layouts.
func rowOf(f adapter.FamilyInfo, modelType string) (familyRow, bool) {
	all := familyRows()
	i := slices.IndexFunc(all, func(r familyRow) bool {
		return r.layouts == layoutsText(f) && r.changes == changesText(f) &&
			slices.ContainsFunc(r.models, func(m string) bool {
				name, _, _ := strings.Cut(m, " ")
				return name == modelType
			})
	})
	if i < 0 {
		return familyRow{}, false
	}
	return all[i], true
}

// The page has every model of the table, each of its layouts, and all that these leave out or make.
func TestFamiliesPageSaysWhatTheTableSays(t *testing.T) {
	page := strings.Join(strings.Fields(topicText(familiesTopic())), " ")
	for _, f := range adapter.Families() {
		for _, modelType := range f.Types {
			r, ok := rowOf(f, modelType)
			if !ok {
				t.Errorf("%s has no row", modelType)
				continue
			}
			for _, l := range f.Layouts {
				if !strings.Contains(r.layouts, l.Layout) {
					t.Errorf("%s: no layout %s: %s", modelType, l.Layout, r.layouts)
				}
				if l.Published != strings.Contains(r.layouts, "published names") &&
					l.Layout == adapter.LayoutNative {
					t.Errorf("%s: %s: published names: %v", modelType, r.layouts, l.Published)
				}
				for _, c := range l.Changes {
					if !strings.Contains(r.changes, c) {
						t.Errorf("%s: %q is not said: %s", modelType, c, r.changes)
					}
				}
			}
			for _, text := range []string{strings.Join(r.models, ", "), r.layouts, r.changes} {
				if !strings.Contains(page, strings.Join(strings.Fields(text), " ")) {
					t.Errorf("%s: the page lacks %q", modelType, text)
				}
			}
		}
	}
}

// The page names the layouts that the checkpoint of a type has, which Layouts finds by itself.
func TestFamiliesPageEqualsWhatCheckpointsHave(t *testing.T) {
	checked := 0
	for _, f := range adapter.Families() {
		if f.Inside != "" || len(f.Architectures) > 0 {
			continue
		}
		for _, modelType := range f.Types {
			c := &adapter.Checkpoint{Config: &adapter.Config{
				Raw: []byte(`{"model_type": "` + modelType + `"}`),
			}}
			for _, layout := range adapter.Layouts(c) {
				if layout == adapter.LayoutHF {
					continue
				}
				checked++
				i := slices.IndexFunc(f.Layouts, func(l adapter.LayoutInfo) bool {
					return l.Layout == layout &&
						(len(l.Types) == 0 || slices.Contains(l.Types, modelType))
				})
				if i < 0 {
					t.Errorf("%s has layout %s, which the page does not name", modelType, layout)
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d layouts were checked", checked)
	}
}

// Each program whose names a layout has is there with its version.
func TestFamiliesPageNamesTheReferences(t *testing.T) {
	body := familiesTopic().body
	for _, l := range adapter.KnownLayouts() {
		if l.Reference == "" {
			continue
		}
		if !strings.Contains(body, "| "+l.Name+" | "+l.Reference+" |") {
			t.Errorf("the page does not say that %s is the reference of %s", l.Reference, l.Name)
		}
	}
	for _, want := range []string{
		"NeMo AutoModel 0.7.0", "transformers 5.24.0", "TorchTitan 0.3.0",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not name %s", want)
		}
	}
}
