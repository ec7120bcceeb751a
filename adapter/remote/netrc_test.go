package remote

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// netrcs are files, the host that is looked for, and what is found: user and password, or "" for
// nothing.
var netrcs = []struct{ file, host, want string }{
	{"", "a.test", ""},
	{"machine a.test login me password word\n", "a.test", "me word"},
	{"machine a.test\n\tlogin me\n\tpassword word\n", "a.test", "me word"},
	{"machine b.test login you password other\nmachine a.test login me password word\n", "a.test",
		"me word"},
	{"machine a.test login me password word\nmachine a.test login you password other", "b.test", ""},
	{"machine a.test account x password word login me", "a.test", "me word"},
	{"machine b.test login you password other\ndefault login me password word\n", "a.test", "me word"},
	{"machine a.test login me password word\ndefault login x password y\n", "a.test", "me word"},
	{"# machine a.test\nmachine a.test login me password word # no\n", "a.test", "me word"},
	{"machine a.test login me password #word\n", "a.test", "me #word"},
	{"machine a.test login machine password default\n", "a.test", "machine default"},
	{"macdef init\nmachine a.test login x password y\n\nmachine a.test login me password word\n",
		"a.test", "me word"},
	{"machine a.test login \"a \\\"b\" password \"word and more\"\n", "a.test", "a \"b word and more"},
}

func TestPasswordsAreFoundInNetrc(t *testing.T) {
	for _, c := range netrcs {
		user, password, ok, err := findMachine(strings.NewReader(c.file), c.host)
		got := ""
		if ok {
			got = user + " " + password
		}
		if err != nil || got != c.want {
			t.Errorf("%q has %q for %s (%v)", c.file, got, c.host, err)
		}
	}
	upper := strings.NewReader("machine A.test login me password word")
	if _, _, ok, _ := findMachine(upper, "a.TEST"); !ok {
		t.Error("upper and lower case differ")
	}
}

// Python reads the same files, as requests does.
func TestPasswordsAreThoseThatPythonFinds(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	const script = `import json, netrc, sys
for name, host in zip(sys.argv[1::2], sys.argv[2::2]):
    a = netrc.netrc(name).authenticators(host)
    print(json.dumps("" if a is None else a[0] + " " + a[2]))`
	arguments := []string{"-c", script}
	for _, c := range netrcs {
		name := filepath.Join(t.TempDir(), "netrc")
		if err := os.WriteFile(name, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, name, c.host)
	}
	out, err := exec.CommandContext(t.Context(), python, arguments...).Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(bytes.NewReader(out))
	for _, c := range netrcs {
		var got string
		if err := answers.Decode(&got); err != nil || got != c.want {
			t.Errorf("%q has %q for %s (%v)", c.file, got, c.host, err)
		}
	}
}

func TestNetrcThatIsRefused(t *testing.T) {
	for _, file := range []string{"machine", "machine a.test login",
		"machine a.test user SECRET password x",
		"SECRET", `machine a.test password "SECRET`, `machine a.test password "SECRET\`} {
		_, _, _, err := findMachine(strings.NewReader(file), "a.test")
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", file, err)
		}
	}
	name := filepath.Join(t.TempDir(), "missing")
	t.Setenv("NETRC", name)
	if _, _, _, err := netrc("a.test"); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("a file that NETRC names is missing: %v", err)
	}
	t.Setenv("NETRC", "")
	t.Setenv("HOME", t.TempDir())
	if _, _, ok, err := netrc("a.test"); ok || err != nil {
		t.Errorf("without a file: %v %v", ok, err)
	}
}
