package main

import "testing"

func TestSizesAreWrittenAsTheyAreRead(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int64
		back string
	}{
		{"0", 0, "0B"},
		{"100", 100, "100B"},
		{"1023", 1023, "1023B"},
		{"4096", 4096, "4KiB"},
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
		if got := formatSize(c.n); got != c.back {
			t.Errorf("%d is written %s, want %s", c.n, got, c.back)
		}
	}
}

func TestWhatIsNoSizeIsRefused(t *testing.T) {
	for _, text := range []string{"", "x", "-1", "1XB", "9EiB9", "20EiB"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, s)
		}
	}
}
