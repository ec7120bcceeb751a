package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	minio "github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/dequantfs/dequantfs/testdata/stores"
)

// awsFiles writes the two files of the AWS CLI.
func awsFiles(t *testing.T, config, secret string) {
	t.Helper()
	writeText(t, os.Getenv("AWS_CONFIG_FILE"), config)
	writeText(t, os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), secret)
}

// withoutKeys takes the keys out of the environment.
func withoutKeys(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN"} {
		t.Setenv(name, "")
	}
}

// serveText answers every request with the text, and counts the requests.
func serveText(t *testing.T, text func(r *http.Request) string) (url string, count *atomic.Int64) {
	t.Helper()
	count = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		answer := text(r)
		if answer == "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL, count
}

// sessionJSON is keys as the services of containers and instances give them.
func sessionJSON(id, secret, token string, expires time.Time) string {
	text, err := json.Marshal(map[string]any{"Code": "Success", "AccessKeyId": id,
		"SecretAccessKey": secret, "Token": token, "SessionToken": token, "Version": 1,
		"Expiration": expires.UTC().Format(time.RFC3339)})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// serverJSON is the keys of the test servers.
func serverJSON() string {
	return sessionJSON(stores.AccessKey, stores.SecretKey, "", time.Now().Add(time.Hour))
}

// Each way to get keys is right if a server that checks signatures takes them.
func TestServedKeysAreFoundWhereTheAWSCLIFindsThem(t *testing.T) {
	s := stores.S3(t, "")
	s.Write(t, "m/x", []byte("x"))
	keys := fmt.Sprintf("aws_access_key_id = %s\naws_secret_access_key=%s\n", stores.AccessKey,
		stores.SecretKey)
	wrong := "aws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong-secret\n"
	for name, prepare := range map[string]func(t *testing.T){
		"the default profile":               func(t *testing.T) { awsFiles(t, "", "[default]\n"+keys) },
		"the default profile of the config": func(t *testing.T) { awsFiles(t, "[default]\n"+keys, "") },
		"a profile": func(t *testing.T) {
			awsFiles(t, "[default]\n"+wrong+"[profile work]\nregion = eu-west-3\n",
				"[default]\n"+wrong+"[work]\n"+keys)
			t.Setenv("AWS_PROFILE", "work")
		},
		"a profile with its endpoint": func(t *testing.T) {
			awsFiles(t, "[profile work]\nendpoint_url = "+s.URL+"/\n"+keys, "")
			setenv(t, "AWS_PROFILE", "work", "AWS_ENDPOINT_URL", "")
		},
		"a profile with services": func(t *testing.T) {
			awsFiles(t, "[profile work]\nservices = near\nendpoint_url = http://127.0.0.1:1\n"+keys+
				"[services near]\ns3 =\n  endpoint_url = "+s.URL+"\nsts =\n  endpoint_url = http://127.0.0.1:1\n", "")
			setenv(t, "AWS_PROFILE", "work", "AWS_ENDPOINT_URL", "")
		},
		"a process": func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "with space.json")
			writeText(t, file, serverJSON())
			awsFiles(t, `[default]`+"\n"+`credential_process = cat "`+file+`"`+"\n", "")
		},
		"a container": func(t *testing.T) {
			url, _ := serveText(t, func(r *http.Request) string {
				if r.Header.Get("Authorization") != "for-me" {
					return ""
				}
				return serverJSON()
			})
			setenv(t, "AWS_CONTAINER_CREDENTIALS_FULL_URI", url+"/keys",
				"AWS_CONTAINER_AUTHORIZATION_TOKEN", "for-me")
		},
		"a pod": func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			writeText(t, file, "of-the-pod")
			url, _ := serveText(t, func(r *http.Request) string {
				if r.Header.Get("Authorization") != "of-the-pod" {
					return ""
				}
				return serverJSON()
			})
			setenv(t, "AWS_CONTAINER_CREDENTIALS_FULL_URI", url,
				"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file)
		},
		"an instance": func(t *testing.T) { useInstance(t, serverJSON()) },
	} {
		t.Run(name, func(t *testing.T) {
			useS3(t, s)
			withoutKeys(t)
			prepare(t)
			store := openStore(t, "s3://"+stores.Bucket+"/m")
			if got := namesIn(t, store, "."); len(got) != 1 || got[0] != "x" {
				t.Errorf("%v", got)
			}
			if openFile(t, store, "x").Mode() != 0o400 {
				t.Error("other users may read what needs keys")
			}
		})
	}
}

// useInstance starts a metadata service as instances have it, which wants a session token.
func useInstance(t *testing.T, keys string) {
	t.Helper()
	url, _ := serveText(t, func(r *http.Request) string {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			return "session"
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "session":
			return ""
		case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
			return "reader\n"
		case strings.HasSuffix(r.URL.Path, "/security-credentials/reader"):
			return keys
		}
		return ""
	})
	setenv(t, "AWS_EC2_METADATA_DISABLED", "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
}

// Moto has the service that gives keys of roles.
func TestServedKeysOfRolesComeFromTheTokenService(t *testing.T) {
	s := stores.Moto(t)
	s.Write(t, "m/x", []byte("x"))
	token := filepath.Join(t.TempDir(), "token")
	writeText(t, token, "header.claims.signature")
	const role = "arn:aws:iam::123456789012:role/reader"
	keys := "aws_access_key_id = AKIASOURCE\naws_secret_access_key = source-secret\n"
	for name, prepare := range map[string]func(t *testing.T){
		"a service account": func(t *testing.T) {
			setenv(t, "AWS_WEB_IDENTITY_TOKEN_FILE", token, "AWS_ROLE_ARN", role)
		},
		"a service account of a profile": func(t *testing.T) {
			awsFiles(t, "[default]\nrole_arn = "+role+"\nweb_identity_token_file = "+token+"\n", "")
		},
		"a source profile": func(t *testing.T) {
			awsFiles(t, "[default]\nrole_arn = "+role+"\nsource_profile = base\n", "[base]\n"+keys)
		},
		"the profile itself": func(t *testing.T) {
			awsFiles(t, "[default]\nrole_arn = "+role+"\nsource_profile = default\n"+keys, "")
		},
		"a chain": func(t *testing.T) {
			awsFiles(t,
				"[default]\nrole_arn = "+role+"\nsource_profile = between\n[profile between]\n"+
					"role_arn = "+role+"\nsource_profile = base\n", "[base]\n"+keys)
		},
		"an instance": func(t *testing.T) {
			awsFiles(t, "[default]\nrole_arn = "+role+"\ncredential_source = Ec2InstanceMetadata\n",
				"")
			useInstance(t, serverJSON())
		},
	} {
		t.Run(name, func(t *testing.T) {
			useS3(t, s)
			withoutKeys(t)
			prepare(t)
			b, err := openS3(t.Context(), address{scheme: "s3", rest: stores.Bucket + "/m"},
				newClient(Options{}))
			if err != nil {
				t.Fatal(err)
			}
			key, err := b.(*s3).keys.get(t.Context())
			if err != nil || !strings.HasPrefix(key.AccessKeyID, "ASIA") ||
				key.SessionToken == "" ||
				time.Until(key.Expiration) < time.Minute {
				t.Fatalf("not the keys of a role until %s, %v", key.Expiration, err)
			}
			if l, err := b.list(t.Context(), ".", 10); err != nil || len(l) != 1 {
				t.Errorf("%v, %v", l, err)
			}
		})
	}
}

// find looks for keys as a new store does.
func find(t *testing.T) (*s3Key, error) {
	t.Helper()
	files, err := readProfiles()
	if err != nil {
		return nil, err
	}
	return (&s3Chain{files, "", newClient(Options{}).http}).find(t.Context())
}

func TestTheFirstKindOfKeysCounts(t *testing.T) {
	noAWS(t)
	url, _ := serveText(t, func(*http.Request) string {
		return sessionJSON("CONTAINER", "secret", "token", time.Now().Add(time.Hour))
	})
	useInstance(t, sessionJSON("INSTANCE", "secret", "token", time.Now().Add(time.Hour)))
	steps := []struct{ want, from string }{
		{"INSTANCE", "the role of the instance"},
		{"CONTAINER", "the role of the container"},
		{"PROFILE", "the profile default"},
		{"ENVIRONMENT", "AWS_ACCESS_KEY_ID"},
		{"", "AWS_NO_SIGN_REQUEST"},
	}
	add := []func(){
		func() {},
		func() { t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url) },
		func() {
			awsFiles(t, "",
				"[default]\naws_access_key_id = PROFILE\n"+
					"aws_secret_access_key = s # not a remark\n")
		},
		func() { setenv(t, "AWS_ACCESS_KEY_ID", "ENVIRONMENT", "AWS_SECRET_ACCESS_KEY", "s") },
		func() { t.Setenv("AWS_NO_SIGN_REQUEST", "1") },
	}
	for i, step := range steps {
		add[i]()
		key, err := find(t)
		if err != nil || key.AccessKeyID != step.want || key.from != step.from {
			t.Fatalf("%v, %v; want %s", key, err, step.want)
		}
		if step.want == "PROFILE" && key.SecretAccessKey != "s # not a remark" {
			t.Errorf("the secret is %q", key.SecretAccessKey)
		}
	}
}

func TestWithoutKeysEveryKindIsNamed(t *testing.T) {
	noAWS(t)
	key, err := find(t)
	if err != nil || !key.anonymous() {
		t.Fatalf("%v, %v", key, err)
	}
	text := strings.Join(key.tried, "\n")
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"the profile default",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_EC2_METADATA_DISABLED"} {
		if !strings.Contains(text, name) {
			t.Errorf("no word of %s in %s", name, text)
		}
	}
}

// A machine without a metadata service must not wait long for one, even if nothing answers there.
func TestAMissingMetadataServiceIsGivenUp(t *testing.T) {
	noAWS(t)
	gone := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-gone:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(gone)
	setenv(t, "AWS_EC2_METADATA_DISABLED", "", "AWS_EC2_METADATA_SERVICE_ENDPOINT", s.URL)
	key, err := find(t)
	if err != nil || !key.anonymous() {
		t.Fatalf("%v, %v", key, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	files, err := readProfiles()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&s3Chain{files, "", http.DefaultClient}).find(ctx); !errors.Is(err,
		context.Canceled) {
		t.Errorf("a caller that has left: %v", err)
	}
}

// A kind of keys that is asked for and fails is an error. Reading on as another user would hide it.
func TestKeysThatCannotBeHadAreNamed(t *testing.T) {
	const secret = "very-secret-text"
	refused, _ := serveText(t, func(*http.Request) string { return "" })
	for name, c := range map[string]struct {
		config, secret string
		env            []string
		want           string
	}{
		"half of the environment": {env: []string{"AWS_SECRET_ACCESS_KEY", secret}, want: "set both"},
		"half of a profile": {secret: "[default]\naws_secret_access_key = " + secret + "\n",
			want: "profile default: it needs both"},
		"no such profile": {env: []string{"AWS_PROFILE", "absent"},
			want: "AWS_PROFILE is absent, and neither"},
		"a process that fails": {config: "[default]\ncredential_process = echo " + secret +
			"; exit 3\n",
			want: "credential_process failed: exit status 3"},
		"a process without keys": {config: "[default]\ncredential_process = echo " + secret + "\n",
			want: "credential_process printed no keys"},
		"a sign-on that has ended": {config: "[default]\nsso_start_url = https://x.awsapps.com/start\n" +
			"sso_region = us-east-1\nsso_account_id = 1\nsso_role_name = reader\n", want: "aws sso login"},
		"an unknown way to sign on": {config: "[default]\nlogin_session = x\n", want: "export-credentials"},
		"a role with a code": {config: "[default]\nrole_arn = r\nsource_profile = " +
			"default\nmfa_serial = m\n",
			want: "export-credentials --profile default"},
		"a circle of profiles": {config: "[default]\nrole_arn = r\nsource_profile = b\n[profile " +
			"b]\n" +
			"role_arn = r\nsource_profile = default\n", want: "refers to itself"},
		"a role without a source": {config: "[default]\nrole_arn = r\nsource_profile = absent\n",
			want: "gives no keys"},
		"an unknown source": {config: "[default]\nrole_arn = r\ncredential_source = Moon\n", want: `"Moon"`},
		"an identity without a role": {env: []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "x"},
			want: "set AWS_ROLE_ARN"},
		"an identity without a file": {env: []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "/absent/token",
			"AWS_ROLE_ARN", "r"}, want: "/absent/token"},
		"a container's service elsewhere": {env: []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI",
			"http://example.com/" + secret}, want: "must be https"},
		"a container's service that refuses": {env: []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI",
			refused + "/" + secret}, want: "the role of the container: 404"},
		"a container's service that is gone": {env: []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI",
			"http://127.0.0.1:1/" + secret}, want: "the role of the container: dial tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			noAWS(t)
			t.Setenv("HOME", t.TempDir())
			awsFiles(t, c.config, c.secret)
			setenv(t, c.env...)
			key, err := find(t)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, %v; want %q", key, err, c.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has the secret: %v", err)
			}
		})
	}
}

func TestAddressesOfContainersAreOnThisMachine(t *testing.T) {
	for address, want := range map[string]bool{
		"https://example.com/x": true, "http://localhost:1/x": true, "http://127.0.0.1/x": true,
		"http://127.9.9.9/": true, "http://[::1]:80/": true, "http://169.254.170.2/x": true,
		"http://169.254.170.23/x": true, "http://[fd00:ec2::23]/x": true,
		"http://169.254.169.254/x": false, "http://example.com/": false, "http://localhost.example/": false,
		"http://10.0.0.1/": false, "ftp://127.0.0.1/": false, "127.0.0.1": false, "http://%zz": false, "": false,
	} {
		if containerHost(address) != want {
			t.Errorf("%q: %v", address, !want)
		}
	}
}

// stub is keys that are made as the test wants.
func stub(f func(n int) (*s3Key, error)) (k *s3Keys, count *atomic.Int64) {
	count = new(atomic.Int64)
	return &s3Keys{one: make(chan struct{}, 1), find: func(context.Context) (*s3Key, error) {
		return f(int(count.Add(1)))
	}}, count
}

func keyUntil(id int, life time.Duration) *s3Key {
	v := minio.Value{AccessKeyID: fmt.Sprint(id), SecretAccessKey: "secret-of-a-test"}
	if life != 0 {
		v.Expiration = time.Now().Add(life)
	}
	return &s3Key{Value: v}
}

// makeDue lets the time pass until a search.
func (k *s3Keys) makeDue() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.renewal, k.pause = time.Now().Add(-time.Second), time.Time{}
}

func TestKeysAreRenewedBeforeTheyExpire(t *testing.T) {
	k, count := stub(func(n int) (*s3Key, error) { return keyUntil(n, time.Hour), nil })
	for range 3 {
		if key, err := k.get(t.Context()); err != nil || key.AccessKeyID != "1" {
			t.Fatalf("%v, %v", key, err)
		}
	}
	k.makeDue()
	if key, err := k.get(t.Context()); err != nil || key.AccessKeyID != "2" {
		t.Errorf("%v, %v", key, err)
	}
	if count.Load() != 2 {
		t.Errorf("asked for %d times", count.Load())
	}
}

func TestKeysAreRenewedInTime(t *testing.T) {
	for life, before := range map[time.Duration]time.Duration{
		time.Hour: 5 * time.Minute, 10 * time.Minute: 2 * time.Minute, 0: 0,
	} {
		expires := time.Now().Add(life)
		if got := expires.Sub(renewalOf(expires)); (got - before).Abs() > time.Second {
			t.Errorf("keys for %s are renewed %s before their end, not %s", life, got, before)
		}
	}
	if !renewalOf(time.Time{}).IsZero() {
		t.Error("keys without an end are renewed")
	}
}

func TestKeysThatAreStillValidOutliveAFailure(t *testing.T) {
	k, count := stub(func(n int) (*s3Key, error) {
		if n == 1 {
			return keyUntil(n, time.Minute), nil
		}
		return nil, errors.New("out of order")
	})
	first, _ := k.get(t.Context())
	k.makeDue()
	for range 3 { // the second call is the only one that asks
		if key, err := k.get(t.Context()); err != nil || key != first {
			t.Fatalf("%v, %v", key, err)
		}
	}
	if count.Load() != 2 {
		t.Errorf("asked for %d times", count.Load())
	}
	k.keep(keyUntil(1, -time.Minute))
	k.makeDue()
	for range 3 { // the first call is the only one that asks
		if _, err := k.get(t.Context()); err == nil ||
			!strings.Contains(err.Error(), "out of order") {
			t.Errorf("expired keys: %v", err)
		}
	}
	if count.Load() != 3 {
		t.Errorf("asked for %d times", count.Load())
	}
}

func TestOneCallerRenewsTheKeys(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	k, count := stub(func(n int) (*s3Key, error) {
		if n > 1 {
			close(enter)
			<-leave
		}
		return keyUntil(n, time.Hour), nil
	})
	old, _ := k.get(t.Context())
	k.makeDue()
	var renewed sync.WaitGroup
	renewed.Go(func() { _, _ = k.get(t.Context()) })
	<-enter
	if key, err := k.get(t.Context()); err != nil || key != old {
		t.Errorf("a caller waits for the renewal, or gets %v, %v", key, err)
	}
	k.renew(old) // now they are not valid
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has left: %v", err)
	}
	close(leave)
	renewed.Wait()
	if key, err := k.get(t.Context()); err != nil || key.AccessKeyID != "2" || count.Load() != 2 {
		t.Errorf("%v, %v, asked for %d times", key, err, count.Load())
	}
}

func TestKeysThatTheStoreRefusesAreRenewedOnce(t *testing.T) {
	noAWS(t)
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1); !strings.Contains(r.Header.Get("Authorization"), "Credential=SECOND/") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w,
				"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message>"+
					"<Token-0>first-token</Token-0></Error>")
			return
		}
		fmt.Fprint(w,
			"<ListBucketResult><Contents><Key>x</Key><Size>1</Size><ETag>e</ETag></Contents>"+
				"</ListBucketResult>")
	}))
	defer s.Close()
	t.Setenv("AWS_ENDPOINT_URL_S3", s.URL)
	keys := func(id string) string {
		return "[default]\naws_access_key_id = " + id + "\naws_secret_access_key = some-secret\n" +
			"aws_session_token = first-token\n"
	}
	awsFiles(t, "", keys("FIRST"))
	store := openStore(t, "s3://bucket").(*store)
	_, err := store.List(t.Context(), ".", 10)
	if err == nil ||
		!strings.Contains(err.Error(), "the credentials from the profile default have expired") ||
		strings.Contains(err.Error(), "first-token") || requests.Load() != 2 {
		t.Errorf("%v, after %d requests", err, requests.Load())
	}
	awsFiles(t, "", "")
	if _, err := store.List(t.Context(), ".", 10); err == nil ||
		!strings.Contains(err.Error(), "are gone") {
		t.Errorf("keys that are gone: %v", err)
	}
	awsFiles(t, "", keys("SECOND"))
	store.backend.(*s3).keys.makeDue() // after the pause
	if got := namesIn(t, store, "."); len(got) != 1 || store.mode() != 0o400 {
		t.Errorf("%v of mode %o", got, store.mode())
	}
}
