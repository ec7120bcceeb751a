package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	minio "github.com/minio/minio-go/v7/pkg/credentials"
)

// s3Key is what requests are signed with.
type s3Key struct {
	minio.Value
	from  string   // for messages
	tried []string // if there are none: why
}

// anonymous reports whether requests are not signed.
func (k *s3Key) anonymous() bool { return k.AccessKeyID == "" }

// s3Keys keeps the credentials, and gets new ones some time before they expire.
type s3Keys struct {
	find     func(ctx context.Context) (*s3Key, error)
	one      chan struct{} // has room while no caller looks for credentials
	unsigned bool          // there were none when the store was opened

	mu      sync.Mutex
	key     *s3Key
	refused bool      // the store says that the key has expired
	renewal time.Time // when a new key is due; zero: never
	failure error     // of the last search
	pause   time.Time // when the next search may begin after that
}

func newS3Keys(c *s3Chain) *s3Keys {
	return &s3Keys{find: c.find, one: make(chan struct{}, 1)}
}

// get returns the credentials. While one goroutine gets new ones, the others use the old ones as
// long as these are valid.
func (k *s3Keys) get(ctx context.Context) (*s3Key, error) {
	switch key, due, valid := k.state(); {
	case !due:
		return key, nil
	case valid:
		select {
		case k.one <- struct{}{}:
		default:
			return key, nil
		}
	default:
		select {
		case k.one <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-k.one }()
	return k.search(ctx)
}

// search gets new credentials. If that fails, it returns the old ones as long as they are valid.
func (k *s3Keys) search(ctx context.Context) (*s3Key, error) {
	old, due, valid := k.state()
	if !due {
		return old, nil
	}
	if err := k.failed(); err != nil {
		return nil, err
	}
	fresh, err := k.find(ctx)
	if err == nil && fresh.anonymous() && old != nil && !old.anonymous() {
		err = errors.New("those that were used are gone")
	}
	switch {
	case err == nil:
		keepSecret(fresh.SecretAccessKey)
		keepSecret(fresh.SessionToken)
		k.keep(fresh)
		return fresh, nil
	case ctx.Err() != nil: // the next caller searches
		return nil, ctx.Err()
	}
	err = fmt.Errorf("credentials for S3: %w", err)
	if valid {
		k.fail(err, 10*time.Second)
		return old, nil
	}
	k.fail(err, time.Second)
	return nil, err
}

// state returns the credentials, whether new ones are due, and whether the old ones are valid until
// then.
func (k *s3Keys) state() (key *s3Key, due, valid bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	due = k.key == nil || k.refused || !k.renewal.IsZero() && now.After(k.renewal)
	valid = k.key != nil && !k.refused &&
		(k.key.Expiration.IsZero() || now.Before(k.key.Expiration))
	return k.key, due && (!valid || now.After(k.pause)), valid
}

func (k *s3Keys) keep(key *s3Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key, k.renewal, k.refused, k.failure = key, renewalOf(key.Expiration), false, nil
}

// fail remembers a failure for a while, so that not every caller waits for the next one.
func (k *s3Keys) fail(err error, pause time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failure, k.pause = err, time.Now().Add(pause)
}

// failed returns the last failure for as long as it is remembered.
func (k *s3Keys) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().After(k.pause) {
		return nil
	}
	return k.failure
}

// renewalOf is when credentials are replaced: five minutes before they expire, or after four fifths
// of a shorter life.
func renewalOf(expires time.Time) time.Time {
	if expires.IsZero() {
		return time.Time{}
	}
	life := max(time.Until(expires), 0)
	return expires.Add(-min(5*time.Minute, life/5))
}

// renew makes the next request use new credentials, since the store says that these have expired.
// It is false if that cannot help.
func (k *s3Keys) renew(expired *s3Key) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if expired.anonymous() {
		return false
	}
	k.refused = k.refused || k.key == expired
	return true
}

// s3Chain finds credentials in the order of the AWS CLI. It takes the first kind that is there. If
// that kind fails, its error is returned, and no other kind is tried.
type s3Chain struct {
	files  *awsProfiles
	region string
	client *http.Client // for services of Amazon
}

// find finds credentials.
func (c *s3Chain) find(ctx context.Context) (*s3Key, error) {
	if files, err := readProfiles(); err == nil { // a tool may have put new keys there
		c = &s3Chain{files, c.region, c.client}
	}
	if wantsUnsigned() {
		return &s3Key{from: "AWS_NO_SIGN_REQUEST", tried: []string{"AWS_NO_SIGN_REQUEST is set"}},
			nil
	}
	var tried []string
	for _, kind := range []func(context.Context) (*s3Key, string, error){
		c.environment, c.webIdentity, c.profile, c.container, c.instance,
	} {
		key, why, err := kind(ctx)
		if err != nil || key != nil {
			return key, withoutAddress(err)
		}
		tried = append(tried, why)
	}
	return &s3Key{from: "no credentials", tried: tried}, nil
}

// wantsUnsigned reports whether the environment asks for requests without signatures.
func wantsUnsigned() bool {
	switch strings.ToLower(os.Getenv("AWS_NO_SIGN_REQUEST")) {
	case "1", "true", "yes", "on":
		return true
	}
	return false
}

// withoutAddress removes the address from an error of a request for credentials, since the address
// may be a secret itself.
func withoutAddress(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	at, inner := strings.Index(err.Error(), u.Error()), u.Err.Error()
	if at < 0 {
		return u.Err
	}
	return fmt.Errorf("%s%s", err.Error()[:at], inner)
}

// environment reads keys from variables.
func (c *s3Chain) environment(context.Context) (*s3Key, string, error) {
	v := minio.Value{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken:    os.Getenv("AWS_SESSION_TOKEN")}
	switch {
	case v.AccessKeyID == "" && v.SecretAccessKey == "":
		return nil, "AWS_ACCESS_KEY_ID is not set", nil
	case v.AccessKeyID == "" || v.SecretAccessKey == "":
		return nil, "",
			errors.New("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither")
	}
	return &s3Key{Value: v, from: "AWS_ACCESS_KEY_ID"}, "", nil
}

// webIdentity exchanges the token of a service account for keys of a role.
func (c *s3Chain) webIdentity(ctx context.Context) (*s3Key, string, error) {
	file := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
	if file == "" {
		return nil, "AWS_WEB_IDENTITY_TOKEN_FILE is not set", nil
	}
	if os.Getenv("AWS_ROLE_ARN") == "" {
		return nil, "", errors.New("AWS_WEB_IDENTITY_TOKEN_FILE is set: set AWS_ROLE_ARN too")
	}
	p := &minio.IAM{Endpoint: c.sts(), Region: c.region}
	return c.from(ctx, p, "the role of AWS_WEB_IDENTITY_TOKEN_FILE")
}

// sts is the address of the service that gives keys of roles.
func (c *s3Chain) sts() string {
	if e := c.files.endpoint("sts"); e != "" {
		return e
	}
	if c.region == "" {
		return minio.DefaultSTSRoleEndpoint
	}
	return "https://sts." + c.region + "." + partition(c.region)
}

// servicePatience is how long a service of credentials may take.
const servicePatience = 30 * time.Second

// from asks a provider for keys.
func (c *s3Chain) from(ctx context.Context, p minio.Provider, name string) (*s3Key, string, error) {
	ctx, cancel := context.WithTimeout(ctx, servicePatience)
	defer cancel()
	v, err := p.RetrieveWithCredContext(&minio.CredContext{Client: c.client, Context: ctx})
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("%s: %w", name, err)
	case v.AccessKeyID == "" || v.SecretAccessKey == "":
		return nil, "", fmt.Errorf("%s: the answer has no keys", name)
	}
	return &s3Key{Value: v, from: name}, "", nil
}

// profile gets the keys of the chosen profile.
func (c *s3Chain) profile(ctx context.Context) (*s3Key, string, error) {
	key, err := c.ofProfile(ctx, c.files.chosen, 0)
	if err != nil {
		return nil, "", fmt.Errorf("profile %s: %w", c.files.chosen, err)
	}
	return key, fmt.Sprintf("the profile %s of %s and %s has no keys", c.files.chosen,
		c.files.paths[0], c.files.paths[1]), nil
}

// ofProfile gets the keys of a profile in the order of the AWS CLI: of a role, of the files, of a
// sign-on in the browser, of a process. It returns nil if the profile has none of them.
func (c *s3Chain) ofProfile(ctx context.Context, profile string, depth int) (*s3Key, error) {
	const deepest = 5
	get := func(key string) string { return c.files.of(profile, key) }
	name := "the profile " + profile
	if depth > deepest {
		return nil, fmt.Errorf("source_profile refers to itself")
	}
	if get("role_arn") != "" && c.files.hasAny(profile, "web_identity_token_file", "source_profile",
		"credential_source") {
		return c.role(ctx, profile, depth)
	}
	if id, secret, token := c.files.static(profile); id != "" {
		return &s3Key{Value: minio.Value{AccessKeyID: id, SecretAccessKey: secret,
			SessionToken: token}, from: name}, nil
	}
	switch {
	case c.files.hasAny(profile, "aws_access_key_id", "aws_secret_access_key"):
		return nil, errors.New("it needs both aws_access_key_id and aws_secret_access_key")
	case c.files.hasAny(profile, "sso_session", "sso_start_url", "sso_role_name", "sso_account_id"):
		key, _, err := c.from(ctx, &minio.FileAWSCredentials{Profile: profile}, name)
		return key, err
	case get("credential_process") != "":
		return c.process(ctx, get("credential_process"), name)
	case get("login_session") != "":
		return nil, fmt.Errorf("keys of aws login are not supported: run eval "+
			"\"$(aws configure export-credentials --profile %s --format env)\"", profile)
	}
	return nil, nil
}

// role gets the keys of the role of a profile.
func (c *s3Chain) role(ctx context.Context, profile string, depth int) (*s3Key, error) {
	get := func(key string) string { return c.files.of(profile, key) }
	name := "the role of the profile " + profile
	if get("mfa_serial") != "" {
		return nil,
			fmt.Errorf("a role that asks for a code (mfa_serial) is not supported: run eval "+
				"\"$(aws configure export-credentials --profile %s --format env)\"", profile)
	}
	if file := get("web_identity_token_file"); file != "" {
		p := &minio.STSWebIdentity{STSEndpoint: c.sts(), RoleARN: get("role_arn")}
		minio.WithWebIdentityTokenFile(file)(p)
		key, _, err := c.from(ctx, p, name)
		return key, err
	}
	key, err := c.source(ctx, profile, depth)
	if err != nil {
		return nil, err
	}
	if key == nil || key.anonymous() {
		return nil, errors.New("its source_profile or credential_source gives no keys")
	}
	key, _, err = c.from(ctx, &minio.STSAssumeRole{STSEndpoint: c.sts(),
		Options: minio.STSAssumeRoleOptions{
			AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey,
			SessionToken: key.SessionToken,
			Location:     signingRegion(c.region), RoleARN: get("role_arn"),
			ExternalID:      get("external_id"),
			RoleSessionName: cmp.Or(get("role_session_name"), "dequantfs"),
		}}, name)
	return key, err
}

// source gets the keys that ask for the role of a profile.
func (c *s3Chain) source(ctx context.Context, profile string, depth int) (key *s3Key, err error) {
	if from := c.files.of(profile, "source_profile"); from == profile {
		id, secret, token := c.files.static(profile)
		return &s3Key{Value: minio.Value{AccessKeyID: id, SecretAccessKey: secret,
			SessionToken: token}}, nil
	} else if from != "" {
		return c.ofProfile(ctx, from, depth+1)
	}
	switch from := c.files.of(profile, "credential_source"); from {
	case "Environment":
		key, _, err = c.environment(ctx)
	case "Ec2InstanceMetadata":
		key, _, err = c.instance(ctx)
	case "EcsContainer":
		key, _, err = c.container(ctx)
	default:
		err = fmt.Errorf("credential_source %q is not known", from)
	}
	return key, err
}

// process runs a program that prints keys. The output is not in errors, since it has the keys.
func (c *s3Chain) process(ctx context.Context, command, name string) (*s3Key, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	shell, flag := "sh", "-c"
	if runtime.GOOS == "windows" {
		shell, flag = "cmd.exe", "/C"
	}
	p := exec.CommandContext(ctx, shell, flag, command)
	p.WaitDelay = time.Second
	out, err := p.Output()
	if err != nil {
		return nil, fmt.Errorf("credential_process failed: %w: run it by hand", err)
	}
	var v struct {
		Version                                    int
		AccessKeyId, SecretAccessKey, SessionToken string
		Expiration                                 time.Time
	}
	if json.Unmarshal(out, &v) != nil || v.Version != 1 || v.AccessKeyId == "" ||
		v.SecretAccessKey == "" {
		return nil, errors.New("credential_process printed no keys of Version 1: run it by hand")
	}
	return &s3Key{Value: minio.Value{AccessKeyID: v.AccessKeyId, SecretAccessKey: v.SecretAccessKey,
		SessionToken: v.SessionToken, Expiration: v.Expiration}, from: name}, nil
}

// metadata sends requests to services of this machine, past any proxy.
var metadata = &http.Client{Transport: &http.Transport{
	DialContext:       (&net.Dialer{Timeout: time.Second}).DialContext,
	DisableKeepAlives: true,
}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// container asks the service of a container for keys of its role.
func (c *s3Chain) container(ctx context.Context) (*s3Key, string, error) {
	p := &minio.IAM{Client: metadata}
	if os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") == "" {
		full := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
		if full == "" {
			return nil, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set", nil
		}
		if !containerHost(full) {
			return nil, "",
				errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or on this " +
					"machine")
		}
		p.Endpoint = full
	}
	return c.from(ctx, p, "the role of the container")
}

// containerHost reports whether an address may be asked for keys: by TLS, or on this machine, or
// at one of the addresses that Amazon has for this.
func containerHost(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	switch {
	case u.Scheme == "https" || u.Hostname() == "localhost":
		return true
	case u.Scheme != "http" || err != nil:
		return false
	}
	switch ip.String() {
	case "169.254.170.2", "169.254.170.23", "fd00:ec2::23":
		return true
	}
	return ip.IsLoopback()
}

// instance asks the metadata service for keys of the instance's role. Machines elsewhere have no
// such service, and lose little time.
func (c *s3Chain) instance(ctx context.Context) (*s3Key, string, error) {
	const patience = 2 * time.Second
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		return nil, "AWS_EC2_METADATA_DISABLED is true", nil
	}
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key, _, err := c.from(short, &minio.IAM{Client: metadata,
		Endpoint: os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")}, "the role of the instance")
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case err != nil:
		return nil, "this machine has no role at Amazon EC2", nil
	}
	return key, "", nil
}
