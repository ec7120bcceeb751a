//go:build unix

package hostile

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// special are files that block when opened, or are not regular files.
func special() []Source {
	pipe := func(name, file string) Source {
		return Source{Name: name, do: func(f *folder) {
			f.remove(file)
			f.try(func() error { return syscall.Mkfifo(f.path(file), 0o644) })
		}}
	}
	return []Source{
		pipe("shard-is-a-pipe", Shard2),
		pipe("index-is-a-pipe", index),
		pipe("config-is-a-pipe", "config.json"),
		{Name: "side-file-is-a-pipe", do: func(f *folder) {
			f.try(func() error { return syscall.Mkfifo(f.path("tokenizer.json"), 0o644) })
		}},
		{Name: "shard-is-a-socket", do: func(f *folder) {
			f.remove(Shard2)
			f.try(func() error { return socket(f.path(Shard2)) })
		}},
	}
}

// socket makes a socket and leaves it. A path of it must be short, so it is made through a link to
// its folder.
func socket(path string) error {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Symlink(filepath.Dir(path), filepath.Join(dir, "l")); err != nil {
		return err
	}
	short := filepath.Join(dir, "l", "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		return err
	}
	return os.Rename(short, path)
}
