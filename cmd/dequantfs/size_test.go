package main

import "testing"

func TestSizesAreWrittenAsTheyAreRead(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int64
		back string
	}{
		{"0", 0, "0B"},
		{"100B", 100, "100B"},
		{"1023b", 1023, "1023B"},
		{"4096B", 4096, "4KiB"},
		{"0B", 0, "0B"},
		{"512MiB", 512 << 20, "512MiB"},
		{"512M", 512e6, "488.3MiB"},
		{"16GiB", 16 << 30, "16GiB"},
		{"16 GiB", 16 << 30, "16GiB"},
		{"1.5GiB", 3 << 29, "1.5GiB"},
		{"1GB", 1e9, "953.7MiB"},
		{"2tib", 2 << 40, "2TiB"},
	} {
		var s size
		if err := s.Set(c.text); err != nil || int64(s) != c.n {
			t.Errorf("%s: %d, %v, want %d", c.text, s, err, c.n)
		}
		var again size
		if text := s.String(); c.n > 0 && (again.Set(text) != nil || again != s) {
			t.Errorf("%s is passed on as %s", c.text, text)
		}
		if got := formatSize(c.n); got != c.back {
			t.Errorf("%d is written %s, want %s", c.n, got, c.back)
		}
	}
}

func TestOtherTextsThanSizesAreRefused(t *testing.T) {
	for _, text := range []string{"", "x", "-1", "1XB", "9EiB9", "20EiB", "4096", "1.5", " 7 ",
		"-1MiB"} {
		var s size
		var c cacheSize
		if s.Set(text) == nil || c.Set(text) == nil {
			t.Errorf("%q is taken for %d and %d", text, s, c.size)
		}
	}
}

// TestNoCacheIsNotTheDefault: --cache-size 0 and no --cache-size are two things, for every command.
func TestNoCacheIsNotTheDefault(t *testing.T) {
	for text, want := range map[string]struct {
		option int64
		shown  string
	}{
		"":     {0, ""},
		"0":    {-1, "0"},
		"0MiB": {-1, "0"},
		"1MiB": {1 << 20, "1MiB"},
	} {
		m, e := new(mountFlags), new(exportFlags)
		for _, c := range []*cacheSize{&m.cacheSize, &e.cacheSize} {
			if text != "" {
				if err := c.Set(text); err != nil {
					t.Fatal(err)
				}
			}
			if c.option() != want.option || c.String() != want.shown {
				t.Errorf("%q: %d %s, want %+v", text, c.option(), c, want)
			}
		}
	}
}
