package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/fs"
)

func newMount() *cobra.Command {
	m := mountFlags{view: viewFlags{every: true}}
	c := &cobra.Command{
		Use:   "mount SOURCE MOUNTPOINT",
		Short: "mount a checkpoint",
		Long: "Mount the views of a checkpoint. Without --layout there is one subdirectory for each layout\n" +
			"that the family has. The command returns when the mountpoint can be read; if it cannot be made\n" +
			"to work nothing stays mounted. The mountpoint is made if it is missing.",
		Example: "  dequantfs mount ~/models/DeepSeek-V3 /mnt/v3\n" +
			"  dequantfs mount ~/models/DeepSeek-V3 /mnt/v3 --layout hf --cache-size 4GiB",
		Args: arity(2, 2),
		RunE: func(c *cobra.Command, args []string) error { return m.run(c, args[0], args[1]) },
	}
	m.view.register(c)
	m.register(c)
	return c
}

// mountFlags are the flags of the mount command.
type mountFlags struct {
	view       viewFlags
	foreground bool
	cacheSize  size
	readAhead  size
	allowOther bool
	logFile    string
}

func (m *mountFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVarP(&m.foreground, "foreground", "f", false, "stay in the foreground; SIGINT and SIGTERM unmount")
	flags.Var(&m.cacheSize, "cache-size", "memory for transposed experts (default a tenth of the memory, at most 16GiB)")
	m.readAhead = 16 << 20
	flags.Var(&m.readAhead, "read-ahead", "read-ahead of the mount, set where permitted")
	flags.BoolVar(&m.allowOther, "allow-other", false, "let other users read the mount")
	flags.StringVar(&m.logFile, "log-file", "", "`FILE` for messages of a mount in the background (default in the state directory)")
}

func (m *mountFlags) run(c *cobra.Command, name, mountpoint string) error {
	if err := m.view.check(); err != nil {
		return err
	}
	p := newProcess()
	if !m.foreground && !p.child {
		return startBackground(c.ErrOrStderr(), m.logFile, os.Args[1:]...)
	}
	mounted, err := m.mount(c, name, mountpoint)
	if err != nil {
		return err
	}
	if err := p.ready(); err != nil {
		return errors.Join(err, mounted.close())
	}
	return mounted.serve(c.Context())
}

// mount opens the source and mounts it. After an error nothing is left behind.
func (m *mountFlags) mount(c *cobra.Command, name, mountpoint string) (*mounted, error) {
	s, err := openSource(c, name, &m.view, fs.Options{CacheSize: m.budget(c), Logger: logger(c)})
	if err != nil {
		return nil, err
	}
	mounted, err := mountSource(s, mountpoint, fs.MountOptions{
		ReadAhead: int64(m.readAhead), AllowOther: m.allowOther, FsName: s.checkpoint.Path,
	})
	if err == nil {
		mounted.log = logger(c)
		m.sayWhoReadsWhat(c, s, mountpoint)
	}
	return mounted, err
}

// mounted is a source that is mounted.
type mounted struct {
	*source
	mount *fs.Mount
	log   *slog.Logger
}

// mountSource mounts s, which it closes if that fails.
func mountSource(s *source, mountpoint string, o fs.MountOptions) (*mounted, error) {
	mountpoint, made, err := makeMountpoint(mountpoint)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	mount, err := s.fs.Mount(mountpoint, o)
	if err != nil && made {
		os.Remove(mountpoint)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &mounted{source: s, mount: mount, log: slog.New(slog.DiscardHandler)}, nil
}

// budget is the cache size as fs wants it, where 0 is the default.
func (m *mountFlags) budget(c *cobra.Command) int64 {
	if c.Flags().Changed("cache-size") && m.cacheSize == 0 {
		return -1
	}
	return int64(m.cacheSize)
}

// makeMountpoint gives the absolute path of a mountpoint, made if it was missing.
func makeMountpoint(path string) (abs string, made bool, err error) {
	if abs, err = filepath.Abs(path); err != nil {
		return "", false, err
	}
	if strings.HasPrefix(abs, "/dev/fd/") {
		return abs, false, nil
	}
	if _, err := os.Stat(abs); !errors.Is(err, os.ErrNotExist) {
		return abs, false, nil // what is wrong with it, mounting says better
	}
	return abs, true, os.MkdirAll(abs, 0o755)
}

// readers says who wants which layout.
var readers = map[string]string{
	"native":       "NeMo AutoModel and training code with grouped experts",
	"hf":           "transformers, vLLM, SGLang, llama.cpp and all else that reads a BF16 Hugging Face checkpoint",
	"transformers": "transformers v5 with grouped experts",
	"torchtitan":   "TorchTitan",
	"hf-fp8":       "whoever wants the quantized Hugging Face checkpoint",
}

// sayWhoReadsWhat goes with the subdirectories that nobody asked for by name: a
// loader that is given the wrong one may start with random experts and only a warning.
func (m *mountFlags) sayWhoReadsWhat(c *cobra.Command, s *source, mountpoint string) {
	if len(m.view.layouts) > 0 {
		return
	}
	said := map[string]bool{}
	for _, v := range s.views {
		layout := v.Plan.Options.Layout
		if said[layout] {
			continue
		}
		said[layout] = true
		fmt.Fprintf(c.ErrOrStderr(), "dequantfs: %s/ is for %s\n", filepath.Join(mountpoint, layout), readers[layout])
	}
}

// serve serves until the mount is gone. When ctx ends it unmounts, and detaches
// what is still in use: its readers are served until they close.
func (m *mounted) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		if err := m.mount.Unmount(false); err != nil {
			m.log.Warn("the mount is in use: it is detached, and files that are open are served until they are closed", "err", err)
			if err := m.mount.Unmount(true); err != nil {
				m.log.Error("cannot unmount", "err", err)
			}
		}
	})
	err := m.mount.Wait()
	stop()
	return errors.Join(err, m.source.Close())
}

func (m *mounted) close() error {
	return errors.Join(m.mount.Unmount(true), m.source.Close())
}
