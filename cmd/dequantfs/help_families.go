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
			fmt.Fprintf(&b, "| %s | %s |\n", l.Name, l.Reference)
		}
	}
	b.WriteString(familiesMiddle)
	for _, r := range familyRows() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(r.models, ", "), r.layouts,
			literal.Replace(r.changes))
	}
	return topic{"families", "models, their layouts, and the references of these",
		strings.TrimPrefix(b.String(), "\n")}
}

// literal keeps keys of tensors from being read as marks of Markdown.
var literal = strings.NewReplacer("_", `\_`, "*", `\*`)

const familiesHead = `
The outermost model_type of config.json decides. Every model has the layouts hf, split and hf-fp8,
with the published names. The others follow a program and its version:

`

const familiesMiddle = `
A dense model that is not in the list below has native too, with the published names, because NeMo
AutoModel has no adapter for it. So has a model around a dense language model. A model that is not
in the list and may have experts has only the layouts that every model has.

The list names split where experts are published grouped. For the other models it equals hf.

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
	families := adapter.Families()
	for _, f := range families {
		r := familyRow{layouts: layoutsText(f), changes: changesText(f)}
		i := slices.IndexFunc(rows, func(o familyRow) bool {
			return o.layouts == r.layouts && o.changes == r.changes
		})
		if i < 0 {
			i = len(rows)
			rows = append(rows, r)
		}
		rows[i].models = append(rows[i].models, modelNames(f, families)...)
	}
	for i := range rows {
		slices.Sort(rows[i].models)
		rows[i].models = slices.Compact(rows[i].models)
	}
	return rows
}

// modelNames names the models of a family by their types. If another family with other layouts has
// a type too, the name says what else the model needs.
func modelNames(f adapter.FamilyInfo, all []adapter.FamilyInfo) (names []string) {
	for _, t := range f.Types {
		other := func(o adapter.FamilyInfo) bool {
			return slices.Contains(o.Types, t) &&
				(layoutsText(o) != layoutsText(f) || changesText(o) != changesText(f))
		}
		switch {
		case !slices.ContainsFunc(all, other):
		case f.Inside != "":
			t += " around " + f.Inside
		case len(f.Architectures) > 0:
			t += " as " + strings.Join(f.Architectures, " or ")
		}
		names = append(names, t)
	}
	return names
}

// layoutsText lists the layouts of a family, and which types have them.
func layoutsText(f adapter.FamilyInfo) string {
	var all []string
	for _, l := range f.Layouts {
		text := l.Layout
		var limits []string
		if l.Published {
			limits = append(limits, "published names")
		}
		if len(l.Types) > 0 {
			limits = append(limits, "only "+strings.Join(l.Types, ", "))
		}
		if l.Sometimes {
			limits = append(limits, "not every configuration")
		}
		if limits != nil {
			text += " (" + strings.Join(limits, "; ") + ")"
		}
		all = append(all, text)
	}
	if f.NoNative != "" {
		all = append(all, "no native: "+f.NoNative)
	}
	if all == nil {
		return "no others"
	}
	return strings.Join(all, ", ")
}

// changesText lists what the layouts of a family leave out or make.
func changesText(f adapter.FamilyInfo) string {
	var all []string
	for _, l := range f.Layouts {
		if len(l.Changes) > 0 {
			all = append(all, l.Layout+": "+strings.Join(l.Changes, "; "))
		}
	}
	return strings.Join(all, ". ")
}
