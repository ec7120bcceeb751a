package adapter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
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

// TestStringsThatLookLikeNumbersStayStrings has strings and keys that are easily taken for the
// numbers that JSON lacks.
func TestStringsThatLookLikeNumbersStayStrings(t *testing.T) {
	const raw = `{"a":"\u0000NaN","\u0000NaN":[NaN,"NaN","\u0000Infinity"],"-Infinity":"-Infinity","\"NaN":"\\","<&>":1e400}`
	c, err := parseConfig([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan(&Checkpoint{Config: c}, Options{Layout: "hf"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "a": "\u0000NaN",
  "\u0000NaN": [
    NaN,
    "NaN",
    "\u0000Infinity"
  ],
  "-Infinity": "-Infinity",
  "\"NaN": "\\",
  "<&>": 1e400
}
`
	if string(p.Config) != want {
		t.Errorf("got %s", p.Config)
	}
	s, err := parseSettings([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if s["a"] != "\x00NaN" || s["<&>"] != math.Inf(1) {
		t.Errorf("%q", s)
	}
}

// TestMessagesShowNumbersAsTheyStand has values that are no counts.
func TestMessagesShowNumbersAsTheyStand(t *testing.T) {
	long := strings.Repeat("é", 1000)
	for written, want := range map[string]string{
		"NaN": "NaN", "-Infinity": "-Infinity", "1e400": "Infinity", "-1e400": "-Infinity", "1.5": "1.5", "1e300": "1e+300", "-1": "-1",
		`"2"`: `"2"`, `[1e400, NaN, "x"]`: `[Infinity,NaN,"x"]`, `{"b": 1, "a": {}}`: `{"a":{},"b":1}`,
		`"` + long + `"`: `"` + long[:98] + "…", "[" + strings.Repeat("1,", 1000) + "1]": "[" + strings.Repeat("1,", 49) + "1…",
	} {
		s, err := parseSettings([]byte(`{"num_experts": ` + written + `}`))
		if err != nil {
			t.Errorf("%.40s: %v", written, err)
			continue
		}
		_, _, err = s.whole("num_experts")
		want := "config.json: num_experts is " + want + ": expected a whole number"
		if err == nil || err.Error() != want {
			t.Errorf("%.40s: got %v, want %s", written, err, want)
		}
	}
}

// FuzzParseConfig has what is taken decoded and written again, and compares both with encoding/json
// where that can read it.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"model_type":"deepseek_v3","text_config":{"a":[1,2.5e3,null,true,"x"]}}`))
	f.Add([]byte(`{"a":[NaN,-Infinity,1e400,-0.0,[],{}],"\u0000NaN":"\u0000NaN","\ud800":"\\\"","":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := parseConfig(raw); err != nil {
			if json.Valid(raw) && utf8.Valid(raw) && bytes.TrimSpace(raw)[0] == '{' &&
				!strings.Contains(err.Error(), "nested deeper") {
				t.Fatalf("%q: %v, but it is a JSON object", raw, err)
			}
			return
		}
		got, err := decodeJSON(raw)
		if err != nil {
			t.Fatalf("%q is taken, but cannot be decoded: %v", raw, err)
		}
		var want any
		if json.Unmarshal(raw, &want) == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %v, want %v", raw, got, want)
		}
		written, err := indentJSON(raw)
		if err != nil {
			t.Fatalf("%q is taken, but cannot be written: %v", raw, err)
		}
		var indented bytes.Buffer
		if json.Indent(&indented, bytes.TrimSpace(raw), "", "  ") == nil &&
			!bytes.Equal(written, indented.Bytes()) {
			t.Fatalf("%q: got %q, want %q", raw, written, indented.Bytes())
		}
		again, err := decodeJSON(written)
		// as text: NaN is not equal to itself
		if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
			t.Fatalf("%q: read again it is %v, not %v (%v)", raw, again, got, err)
		}
	})
}
