package adapter

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseConfigTakesObjects(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`:                              "",
		" {\"model_type\":\"x\"} \r\n\t":  "x",
		`{"model_type":null}`:             "",
		`{"model_type":3}`:                "",
		`{"a":{"model_type":"inner"}}`:    "",
		`{"a":[1e999,-0.0,{"b":[[]]}]}`:   "",
		`{"a":123456789012345678901234}`:  "",
		`{"model_type":"é\u00e9\ud800"}`:  "éé\ufffd",
		`{"a":1,"a":2,"model_type":"kk"}`: "kk",
	} {
		c, err := parseConfig([]byte(raw))
		if err != nil || c.ModelType != want || string(c.Raw) != raw {
			t.Errorf("%s: got %+v, %v", raw, c, err)
		}
	}
}

func TestParseConfigRefusesAllElse(t *testing.T) {
	for raw, want := range map[string]string{
		"":                          "EOF",
		" ":                         "EOF",
		"null":                      "it begins with",
		"3":                         "it begins with",
		`"x"`:                       "it begins with \"x\"",
		"[]":                        "it begins with \"[\"",
		"{":                         "EOF",
		`{"a":`:                     "EOF",
		`{"a":1,}`:                  "invalid",
		`{"a" 1}`:                   "invalid",
		`{}{}`:                      "something follows it",
		`{}x`:                       "something follows it",
		"{\"\xff\":1}":              "UTF-8",
		"\ufeff{}":                  "invalid",
		`{"a":NaNo}`:                "invalid",
		strings.Repeat(`{"a":`, 65): "nested deeper",
		`{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`: "nested deeper",
	} {
		if c, err := parseConfig([]byte(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %v, %v, want an error with %q", raw, c, err, want)
		}
	}
}

// TestNumbersThatJSONLacksAreKept follows what Python writes for an infinite number
// through the view's config.json.
func TestNumbersThatJSONLacksAreKept(t *testing.T) {
	const raw = `{"model_type":"x","time_step_limit":[0.0, Infinity],"a":{"b":-Infinity,"c":[NaN]},"d":"NaN \" Infinity","quantization_config":{"x":NaN}}`
	c, err := parseConfig([]byte(raw))
	if err != nil || c.ModelType != "x" || string(c.Raw) != raw {
		t.Fatalf("got %+v, %v", c, err)
	}
	p, err := NewPlan(&Checkpoint{Config: c}, Options{Layout: "hf"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "model_type": "x",
  "time_step_limit": [
    0.0,
    Infinity
  ],
  "a": {
    "b": -Infinity,
    "c": [
      NaN
    ]
  },
  "d": "NaN \" Infinity"
}
`
	if string(p.Config) != want {
		t.Errorf("got %s", p.Config)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"model_type":"deepseek_v3","text_config":{"a":[1,2.5e3,null,true,"x"]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseConfig(raw)
		if err != nil {
			return
		}
		if got := showNumbers(hideNumbers(raw)); !bytes.Contains(raw, []byte("u0000")) && !bytes.Equal(got, raw) {
			t.Fatalf("%q came back as %q", raw, got)
		}
		if _, err := members(hideNumbers(c.Raw)); err != nil {
			t.Fatalf("taken, but its members cannot be read: %v", err)
		}
	})
}
