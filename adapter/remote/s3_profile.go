package remote

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/ini.v1"
)

// awsProfiles are the two files of the AWS CLI.
type awsProfiles struct {
	config, secret *ini.File // no sections if a file does not exist
	paths          [2]string
	chosen         string // the profile
	named          bool   // by the environment
}

// readProfiles reads the files.
func readProfiles() (*awsProfiles, error) {
	f := &awsProfiles{paths: [2]string{
		cmp.Or(os.Getenv("AWS_CONFIG_FILE"), inHome("config")),
		cmp.Or(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), inHome("credentials")),
	}}
	f.chosen = cmp.Or(os.Getenv("AWS_PROFILE"), os.Getenv("AWS_DEFAULT_PROFILE"))
	f.named = f.chosen != ""
	f.chosen = cmp.Or(f.chosen, "default")
	for i, to := range []**ini.File{&f.config, &f.secret} {
		file, err := ini.LoadSources(ini.LoadOptions{
			Loose: true, AllowNestedValues: true, SkipUnrecognizableLines: true,
			IgnoreInlineComment: true, IgnoreContinuation: true, InsensitiveKeys: true,
			PreserveSurroundedQuote: true, KeyValueDelimiters: "=:",
		}, f.paths[i])
		if err != nil { // without the error's text, which may have a line with a secret
			return nil, fmt.Errorf("%s cannot be read as a file of the AWS CLI: check it by "+
				"aws configure list", f.paths[i])
		}
		*to = file
	}
	if f.named && !f.has(f.chosen) {
		return nil,
			fmt.Errorf("AWS_PROFILE is %s, and neither %s nor %s has that profile: check it "+
				"by aws configure list-profiles", f.chosen, f.paths[0], f.paths[1])
	}
	return f, nil
}

// inHome is the path of a file of the AWS CLI. Without a home there is none.
func inHome(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return os.DevNull
	}
	return filepath.Join(home, ".aws", name)
}

// sections are the places with keys of a profile. The first that has a key counts.
func (f *awsProfiles) sections(profile string) (list []*ini.Section) {
	if s, err := f.secret.GetSection(profile); err == nil {
		list = append(list, s)
	}
	for _, s := range f.config.Sections() {
		name, ok := strings.CutPrefix(strings.ReplaceAll(s.Name(), "\t", " "), "profile ")
		if ok && strings.Trim(strings.TrimSpace(name), `"'`) == profile {
			return append(list, s)
		}
	}
	if s, err := f.config.GetSection("default"); err == nil && profile == "default" {
		list = append(list, s)
	}
	return list
}

// has reports whether a profile exists.
func (f *awsProfiles) has(profile string) bool { return len(f.sections(profile)) > 0 }

// of returns the value of a key of a profile.
func (f *awsProfiles) of(profile, key string) string {
	for _, s := range f.sections(profile) {
		if s.HasKey(key) {
			return strings.TrimSpace(s.Key(key).String())
		}
	}
	return ""
}

// get returns the value of a key of the chosen profile.
func (f *awsProfiles) get(key string) string { return f.of(f.chosen, key) }

// nested returns the value of a key below another key, such as addressing_style below s3.
func (f *awsProfiles) nested(under, key string) string {
	for _, s := range f.sections(f.chosen) {
		if s.HasKey(under) {
			return nestedIn(s.Key(under), key)
		}
	}
	return ""
}

func nestedIn(k *ini.Key, key string) string {
	for _, line := range k.NestedValues() {
		if name, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// static returns the keys that a profile has itself. Both are from the same file.
func (f *awsProfiles) static(profile string) (id, secret, token string) {
	for _, s := range f.sections(profile) {
		id, secret = s.Key("aws_access_key_id").String(), s.Key("aws_secret_access_key").String()
		if id != "" && secret != "" {
			return id, secret, s.Key("aws_session_token").String()
		}
	}
	return "", "", ""
}

// endpoint finds the endpoint of a service: for that service before the one for all, and in the
// environment before the profile.
func (f *awsProfiles) endpoint(service string) string {
	if os.Getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") == "true" {
		return ""
	}
	if e := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_"+strings.ToUpper(service)),
		os.Getenv("AWS_ENDPOINT_URL")); e != "" {
		return e
	}
	if services, err := f.config.GetSection("services " + f.get("services")); err == nil {
		if e := nestedIn(services.Key(service), "endpoint_url"); e != "" {
			return e
		}
	}
	return cmp.Or(f.nested(service, "endpoint_url"), f.get("endpoint_url"))
}

// hasAny reports whether a profile has one of the keys.
func (f *awsProfiles) hasAny(profile string, keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return f.of(profile, k) != "" })
}
