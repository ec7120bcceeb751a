package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// ignoredOptions are mount options of fstab and mount(8) without an effect here. Every mount has
// them in any case, or another program acts on them.
var ignoredOptions = map[string]bool{
	"ro": true, "rw": true, "defaults": true, "auto": true, "noauto": true, "nofail": true,
	"_netdev": true, "user": true, "nouser": true, "users": true, "owner": true, "group": true,
	"nosuid": true, "suid": true, "nodev": true, "dev": true, "noexec": true, "exec": true,
	"async": true, "sync": true, "dirsync": true, "atime": true, "noatime": true,
	"diratime": true, "nodiratime": true, "relatime": true, "norelatime": true,
	"strictatime": true, "nostrictatime": true, "lazytime": true, "nolazytime": true,
}

// notOptions are flags that are not valid after -o.
var notOptions = map[string]bool{"help": true, "options": true}

// applyOptions reads -o options. Each is the name of a flag, spelled with _ or -, such as
// allow_other or cache_size=4GiB. A comma in a value is written +, as in layout=native+hf.
func applyOptions(c *cobra.Command, options []string) error {
	for _, o := range options {
		name, value, hasValue := strings.Cut(o, "=")
		if o == "" || ignoredOptions[name] || strings.HasPrefix(name, "x-") || name == "comment" {
			continue
		}
		flag := c.Flags().Lookup(strings.ReplaceAll(name, "_", "-"))
		if flag == nil || notOptions[flag.Name] {
			return noSuchOption(c, name)
		}
		if !hasValue {
			value = flag.NoOptDefVal
		}
		if value == "" {
			return wrongUsage(c, "-o %s: it needs a value, as in %s=…", name, name)
		}
		if flag.Name == "layout" {
			value = strings.ReplaceAll(value, "+", ",")
		}
		if err := c.Flags().Set(flag.Name, value); err != nil {
			return usageError{fmt.Errorf("-o %s: %w", o, err)}
		}
	}
	return nil
}

// noSuchOption refuses an option, and names those that look like it.
func noSuchOption(c *cobra.Command, name string) error {
	err := fmt.Errorf("-o %s: there is no such option", name)
	near := slices.DeleteFunc(flagsLike(c, name), func(n string) bool { return notOptions[n] })
	if len(near) == 0 {
		return wrongUsage(c, "%w", err)
	}
	return usageError{withHint(err, "did you mean -o %s?", strings.Join(near, " or "))}
}
