package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter/remote/diskcache"
)

func newCache() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache COMMAND",
		Short: "list or remove what --disk-cache keeps of remote sources",
		Long: "Look after a folder that mounts use as --disk-cache. Mounts may use it\n" +
			"meanwhile: they fetch again what is removed.",
		Example: "  dequantfs cache ls /data/cache\n" +
			"  dequantfs cache prune /data/cache --size 200GiB",
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			return wrongUsage(c, "a command is missing")
		},
	}
	c.AddCommand(newCacheLs(), newCachePrune())
	return c
}

func newCacheLs() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls DIRECTORY",
		Short:   "list the sources in a cache",
		Long:    "List the sources in a cache, with their objects, blocks and bytes on the disk.",
		Example: "  dequantfs cache ls /data/cache",
		Args:    arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			sources, err := diskcache.Sources(args[0])
			switch {
			case err != nil:
				return err
			case asJSON:
				return writeJSON(c.OutOrStdout(), cacheFacts(args[0], sources))
			}
			return writeCache(c.OutOrStdout(), sources, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// cacheJSON is the output of cache ls --json.
type cacheJSON struct {
	Version   int            `json:"version"`
	Directory string         `json:"directory"`
	Sources   []cachedSource `json:"sources"`
}

// cachedSource is a source in a cache. The name is empty for blocks that are damaged.
type cachedSource struct {
	Source  string    `json:"source"`
	Objects int       `json:"objects"`
	Blocks  int       `json:"blocks"`
	Bytes   int64     `json:"bytes"`
	Used    time.Time `json:"last_used"`
}

func cacheFacts(dir string, sources []diskcache.Source) cacheJSON {
	facts := cacheJSON{jsonVersion, dir, make([]cachedSource, len(sources))}
	for i, s := range sources {
		facts.Sources[i] = cachedSource{s.Origin, s.Objects, s.Blocks, s.Bytes, s.Used.UTC()}
	}
	return facts
}

func writeCache(w io.Writer, sources []diskcache.Source, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "SOURCE\tOBJECTS\tBLOCKS\tSIZE\tLAST USED")
	var total int64
	for _, s := range sources {
		name := s.Origin
		if name == "" {
			name = "(damaged)"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", oneLine(name), s.Objects, s.Blocks,
			formatSize(s.Bytes), formatAge(now.Sub(s.Used)))
		total += s.Bytes
	}
	if err := table.Flush(); err != nil {
		return err
	}
	n := len(sources)
	_, err := fmt.Fprintf(w, "%d %s, %s\n", n, plural(n, "source", "sources"), formatSize(total))
	return err
}

// day is the largest unit of an age.
const day = 24 * time.Hour

// formatAge prints how long ago something was, in one unit: 12m, 5h, 30d.
func formatAge(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	}
	return fmt.Sprintf("%dd ago", d/day)
}

// age is a flag such as 12h or 30d.
type age time.Duration

func (a *age) Set(text string) error {
	days, inDays := strings.CutSuffix(text, "d")
	if n, err := strconv.ParseUint(days, 10, 32); inDays && err == nil && n > 0 &&
		n <= math.MaxInt64/uint64(day) {
		*a = age(time.Duration(n) * day)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not an age such as 12h or 30d", text)
	}
	*a = age(d)
	return nil
}

func (a *age) String() string {
	if *a == 0 {
		return "" // help then names no default
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "AGE" }

func newCachePrune() *cobra.Command {
	var left size
	var older age
	c := &cobra.Command{
		Use:   "prune DIRECTORY [SOURCE...]",
		Short: "remove blocks from a cache",
		Long: "Remove blocks from a cache, and say how much that has freed. Without --size and\n" +
			"--older, all blocks of the sources are removed. The name of a source may lack its\n" +
			"revision.",
		Example: "  dequantfs cache prune /data/cache --size 200GiB\n" +
			"  dequantfs cache prune /data/cache --older 30d\n" +
			"  dequantfs cache prune /data/cache hf://deepseek-ai/DeepSeek-V3",
		Args: arity(1, math.MaxInt),
		RunE: func(c *cobra.Command, args []string) error {
			p := diskcache.Pruning{Origins: args[1:], Older: time.Duration(older),
				Size: int64(left), Limited: c.Flags().Changed("size")}
			if len(p.Origins) == 0 && p.Older == 0 && !p.Limited {
				return usageError{withHint(fmt.Errorf("what to remove is missing"),
					"give --size, --older or a source; --size 0 removes everything")}
			}
			return prune(c.OutOrStdout(), args[0], p)
		},
	}
	c.Flags().Var(&left, "size",
		"remove what was not used for the longest time, until SIZE is left")
	c.Flags().Var(&older, "older", "remove what was not used for AGE, such as 12h or 30d")
	return c
}

func prune(w io.Writer, dir string, p diskcache.Pruning) error {
	blocks, bytes, err := diskcache.Prune(dir, p)
	if blocks > 0 || err == nil {
		fmt.Fprintf(w, "freed %s: %d %s\n", formatSize(bytes), blocks,
			plural(blocks, "block", "blocks"))
	}
	if errors.Is(err, diskcache.ErrNoSource) {
		return withHint(err, "dequantfs cache ls %s lists the sources", dir)
	}
	return err
}
