package adapter

import (
	"fmt"
	"strings"
)

// Unknown names the model of a checkpoint if no row is for it, and a known model_type that its own
// resembles. Both are empty if they do not exist.
func Unknown(c *Checkpoint) (model, similar string) {
	s := c.Config.fields()
	f := c.row(s)
	if !f.unknown || s.modelType() == "" {
		return "", ""
	}
	model = s.modelType()
	if types := s.modelTypes(); len(types) > 1 {
		model += " around " + types[1]
	}
	return model, similarType(s.modelType())
}

// didYouMean asks whether a known model_type is meant, for a message.
func didYouMean(s settings) string {
	if t := similarType(s.modelType()); t != "" {
		return fmt.Sprintf(" (did you mean %q?)", t)
	}
	return ""
}

// similarType returns the known model_type that a value differs from only by case or punctuation,
// or "". Other differences may be those of another model: pixtral is not mixtral.
func similarType(t string) string {
	similar := ""
	for i := range families {
		for _, known := range families[i].types {
			switch {
			case known == t:
				return ""
			case plainType(known) == plainType(t):
				similar = known
			}
		}
	}
	return similar
}

// plainType is a model_type without what is often written in another way.
func plainType(t string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(t))
}
