package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
)

// familiesTopic is the page about the table of families. It is made of the table.
func familiesTopic() topic {
	var b strings.Builder
	b.WriteString(familiesHead)
	b.WriteString("| layout | names and shapes of |\n|---|---|\n")
	for _, l := range adapter.KnownLayouts() {
		if l.Reference != "" {
			fmt.Fprintf(&b, "| `%s` | %s |\n", l.Name, l.Reference)
		}
	}
	b.WriteString(familiesMiddle)
	for _, r := range familyRows() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(r.models, ", "), r.layouts, r.changes)
	}
	return topic{"families", "models, their layouts, and the references of these", b.String()}
}

const familiesHead = `The outermost ` + "`model_type`" + ` of config.json decides. Every model has the layouts ` +
	"`hf`, `split`" + ` and
` + "`hf-fp8`" + `, with the published names. The others follow a program and its version:

`

const familiesMiddle = `
A dense model that is not in the list below has ` + "`native`" + ` too, with the published names, because
NeMo AutoModel has no adapter for it. So has a model around a dense language model. A model that is
not in the list and may have experts has the three layouts that every model has.

` + "`split`" + ` is named where experts are published grouped. For the other models it equals ` + "`hf`" + `.

## Models

| model_type | layouts | left out or made |
|---|---|---|
`

// familyRow is a row of the page, for families with the same layouts.
type familyRow struct {
	models           []string
	layouts, changes string
}

// familyRows joins the families that have the same text.
func familyRows() (rows []familyRow) {
	for _, f := range adapter.Families() {
		r := familyRow{layouts: layoutsText(f), changes: changesText(f)}
		i := slices.IndexFunc(rows, func(o familyRow) bool {
			return o.layouts == r.layouts && o.changes == r.changes
		})
		if i < 0 {
			i = len(rows)
			rows = append(rows, r)
		}
		for _, m := range modelNames(f) {
			if !slices.Contains(rows[i].models, m) {
				rows[i].models = append(rows[i].models, m)
			}
		}
	}
	for _, r := range rows {
		slices.Sort(r.models)
	}
	return rows
}

// modelNames names the models of a family by their types, and by what else they need.
func modelNames(f adapter.FamilyInfo) (names []string) {
	for _, t := range f.Types {
		switch {
		case f.Inside != "":
			t += " around " + f.Inside
		case len(f.Architectures) > 0:
			t += " (" + strings.Join(f.Architectures, " or ") + ")"
		}
		names = append(names, t)
	}
	return names
}

// layoutsText lists the layouts of a family, and which types have them.
func layoutsText(f adapter.FamilyInfo) string {
	var all []string
	for _, l := range f.Layouts {
		text := "`" + l.Layout + "`"
		if l.Published {
			text += ", published names"
		}
		if l.Sometimes {
			text += ", not every configuration"
		}
		if len(l.Types) > 0 {
			text += ", only " + strings.Join(l.Types, ", ")
		}
		all = append(all, text)
	}
	if f.NoNative != "" {
		all = append(all, "no `native`: "+f.NoNative)
	}
	return strings.Join(all, "; ")
}

// changesText lists what the layouts of a family leave out or make.
func changesText(f adapter.FamilyInfo) string {
	in := map[string][]string{}
	var changes []string
	for _, l := range f.Layouts {
		for _, c := range l.Changes {
			if in[c] == nil {
				changes = append(changes, c)
			}
			in[c] = append(in[c], "`"+l.Layout+"`")
		}
	}
	for i, c := range changes {
		changes[i] = strings.Join(in[c], " and ") + " " + c
	}
	return strings.Join(changes, "; ")
}
