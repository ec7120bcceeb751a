package remote

import (
	"net/url"
	"strings"
	"testing"
)

// siteFor is the place of a bucket with an environment and files.
func siteFor(t *testing.T, bucket, config string, env ...string) (s3Site, string, error) {
	t.Helper()
	noAWS(t)
	awsFiles(t, config, "")
	setenv(t, env...)
	files, err := readProfiles()
	if err != nil {
		return s3Site{}, "", err
	}
	s, err := siteOf(files, bucket)
	return s, regionOf(files), err
}

func TestBucketsAreAtTheAddressesOfS3(t *testing.T) {
	for name, c := range map[string]struct {
		bucket, config string
		env            []string
		want           string // of the key "m/a b+c"
	}{
		"no region": {"models", "", nil, "https://models.s3.us-east-1.amazonaws.com/m/a%20b%2Bc"},
		"a region": {"models", "", []string{"AWS_REGION", "eu-west-3"},
			"https://models.s3.eu-west-3.amazonaws.com/m/a%20b%2Bc"},
		"the older name of the region": {"models", "", []string{"AWS_DEFAULT_REGION", "eu-west-3"},
			"https://models.s3.eu-west-3.amazonaws.com/m/a%20b%2Bc"},
		"a region of the profile": {"models", "[default]\nregion = ap-south-1\n", nil,
			"https://models.s3.ap-south-1.amazonaws.com/m/a%20b%2Bc"},
		"China": {"models", "", []string{"AWS_REGION", "cn-north-1"},
			"https://models.s3.cn-north-1.amazonaws.com.cn/m/a%20b%2Bc"},
		"a region that is none": {"models", "", []string{"AWS_REGION", "evil.example/x"},
			"https://models.s3.us-east-1.amazonaws.com/m/a%20b%2Bc"},
		"dots":     {"my.models", "", nil, "https://s3.us-east-1.amazonaws.com/my.models/m/a%20b%2Bc"},
		"capitals": {"Models", "", nil, "https://s3.us-east-1.amazonaws.com/Models/m/a%20b%2Bc"},
		"both kinds of addresses": {"models", "", []string{"AWS_USE_DUALSTACK_ENDPOINT", "true"},
			"https://models.s3.dualstack.us-east-1.amazonaws.com/m/a%20b%2Bc"},
		"an endpoint": {"models", "", []string{"AWS_ENDPOINT_URL", "http://minio:9000/"},
			"http://minio:9000/models/m/a%20b%2Bc"},
		"an endpoint of S3": {"models", "", []string{"AWS_ENDPOINT_URL", "http://all",
			"AWS_ENDPOINT_URL_S3", "https://s3.example/base"}, "https://s3.example/base/models/m/a%20b%2Bc"},
		"an endpoint that is ignored": {"models", "", []string{"AWS_ENDPOINT_URL", "http://all",
			"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"}, "https://models.s3.us-east-1.amazonaws.com/m/a%20b%2Bc"},
		"hosts at an endpoint": {"models", "", []string{"AWS_ENDPOINT_URL", "https://r2.example",
			"AWS_S3_ADDRESSING_STYLE", "virtual"}, "https://models.r2.example/m/a%20b%2Bc"},
		"hosts by the profile": {"models",
			"[default]\ns3 =\n  max_queue_size = 3\n  addressing_style = virtual\n" +
				"endpoint_url = https://r2.example\n", nil, "https://models.r2.example/m/a%20b%2Bc"},
		"paths at Amazon": {"models", "", []string{"AWS_S3_ADDRESSING_STYLE", "path"},
			"https://s3.us-east-1.amazonaws.com/models/m/a%20b%2Bc"},
	} {
		s, region, err := siteFor(t, c.bucket, c.config, c.env...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := s.url(region, c.bucket, "m/a b+c", nil).String(); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
		bucket := strings.TrimSuffix(strings.TrimSuffix(c.want, "m/a%20b%2Bc"), "/")
		list := s.url(region, c.bucket, "", url.Values{"prefix": {"a b/"}}).String()
		if got := strings.Replace(list, "/?", "?", 1); got != bucket+"?prefix=a%20b%2F" {
			t.Errorf("%s: a listing is at %s", name, list)
		}
	}
}

func TestEndpointsThatAreNoneAreRefused(t *testing.T) {
	for name, env := range map[string][]string{
		"no scheme":       {"AWS_ENDPOINT_URL", "minio:9000"},
		"another scheme":  {"AWS_ENDPOINT_URL", "ftp://minio"},
		"a user":          {"AWS_ENDPOINT_URL", "http://user:secret@minio"},
		"a query":         {"AWS_ENDPOINT_URL", "http://minio/?secret"},
		"no host":         {"AWS_ENDPOINT_URL_S3", "http:///x"},
		"a strange style": {"AWS_S3_ADDRESSING_STYLE", "sideways"},
	} {
		if _, _, err := siteFor(t, "models", "", env...); err == nil ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesOfBucketsAndFolders(t *testing.T) {
	for rest, want := range map[string][2]string{
		"b12":         {"b12", ""},
		"b12/":        {"b12", ""},
		"b12/m":       {"b12", "m/"},
		"b12/m/":      {"b12", "m/"},
		"b12/m/n//":   {"b12", "m/n/"},
		"my.b_1/a b?": {"my.b_1", "a b?/"},
	} {
		bucket, prefix, err := splitS3(rest)
		if err != nil || bucket != want[0] || prefix != want[1] {
			t.Errorf("%s: %s %s %v", rest, bucket, prefix, err)
		}
	}
	for _, rest := range []string{"", "/m", "b", "a..b/m", "-ab/m", "a b/m", "user@host/m",
		"host:80/m",
		"b12//m", "b12/./m", "b12/../m", "b12/a\nb", "b12/\xff", `b12/a\b`, "arn:aws:s3:x/m", "b--use1-az4--x-s3/m",
		"b12/" + strings.Repeat("x", 256)} {
		if bucket, prefix, err := splitS3(rest); err == nil {
			t.Errorf("%q: %s, %s", rest, bucket, prefix)
		}
	}
}

func TestProfilesThatCannotBeReadAreNamed(t *testing.T) {
	noAWS(t)
	awsFiles(t, "[default\nsecret-text\n", "")
	_, err := readProfiles()
	if err == nil || !strings.Contains(err.Error(), "config cannot be read") ||
		strings.Contains(err.Error(), "secret-text") {
		t.Errorf("%v", err)
	}
}

func TestBothFilesOfAProfileCount(t *testing.T) {
	noAWS(t)
	awsFiles(t,
		"[profile a]\nregion = eu-west-3\nAWS_ACCESS_KEY_ID = CONFIG\naws_secret_access_key = c\n"+
			"[b]\nregion = not-a-profile\n",
		"[a]\naws_access_key_id = FILE\naws_secret_access_key = f\n")
	t.Setenv("AWS_PROFILE", "a")
	f, err := readProfiles()
	if err != nil {
		t.Fatal(err)
	}
	if id, secret, _ := f.static("a"); id != "FILE" || secret != "f" ||
		f.get("region") != "eu-west-3" {
		t.Errorf("%s %s %s", id, secret, f.get("region"))
	}
	if f.has("b") || f.has("absent") || !f.has("a") {
		t.Error("other profiles")
	}
	t.Setenv("HOME", "")
	setenv(t, "AWS_CONFIG_FILE", "", "AWS_SHARED_CREDENTIALS_FILE", "", "AWS_PROFILE", "")
	if f, err := readProfiles(); err != nil || f.has("default") {
		t.Errorf("without a home: %v", err)
	}
}

// The values are those that botocore 1.44, which the AWS CLI reads its files with, finds.
func TestProfilesMeanWhatTheyDoForTheAWSCLI(t *testing.T) {
	const keys = "aws_access_key_id = A\naws_secret_access_key = s\n"
	for name, c := range map[string]struct{ config, secret, profile, want string }{
		"plain":               {"[default]\nregion = r-1\n", "[default]\n" + keys, "", "A s  r-1  "},
		"no spaces":           {"", "[default]\naws_access_key_id=A\naws_secret_access_key=s/+=x\n", "", "A s/+=x    "},
		"colons":              {"", "[default]\naws_access_key_id: A\naws_secret_access_key: s\n", "", "A s    "},
		"remarks":             {"# c\n; d\n[default]\n#region = x\nregion = r-1\n", "[default]\n; x\n" + keys, "", "A s  r-1  "},
		"no remark":           {"", "[default]\naws_access_key_id = A # c ; d\naws_secret_access_key = s\n", "", "A # c ; d s    "},
		"quotes":              {"", "[default]\naws_access_key_id = \"A\"\naws_secret_access_key = 's'\n", "", "\"A\" 's'    "},
		"no variables":        {"", "[default]\naws_access_key_id = A\naws_secret_access_key = a%(region)s$b\\\n", "", "A a%(region)s$b\\    "},
		"capitals":            {"", "[default]\nAWS_ACCESS_KEY_ID = A\nAWS_SECRET_ACCESS_KEY = s\n", "", "A s    "},
		"indented":            {"", "[default]\n  aws_access_key_id = A\n  aws_secret_access_key = s\n", "", "A s    "},
		"lines of Windows":    {"", "[default]\r\naws_access_key_id = A\r\naws_secret_access_key = s\r\n", "", "A s    "},
		"a token":             {"", "[default]\n" + keys + "aws_session_token = T==\n", "", "A s T==   "},
		"two defaults":        {"[default]\nregion = a-1\n[profile default]\nregion = b-1\n", "[default]\n" + keys, "", "A s  b-1  "},
		"a profile in quotes": {"[profile \"my prof\"]\nregion = r-1\n" + keys, "", "my prof", "A s  r-1  "},
		"a tab":               {"[profile\twork]\nregion = r-1\n" + keys, "", "work", "A s  r-1  "},
		"keys below a key": {"[default]\nregion = r-1\ns3 =\n    addressing_style = path\n    " +
			"max = 3\n" +
			"endpoint_url = http://e\n" + keys, "", "", "A s  r-1 http://e path"},
		"keys below a key, by tabs": {"[default]\ns3 =\n\taddressing_style=path\nregion = r-1\n" +
			keys, "", "",
			"A s  r-1  path"},
		"services": {"[default]\nservices = x\nendpoint_url=http://g\n" + keys + "[services x]\nsts =\n" +
			"  endpoint_url = http://sts\ns3 =\n  endpoint_url = http://s3\n", "", "", "A s   http://s3 "},
		"keys in both files": {"[default]\naws_access_key_id = C\naws_secret_access_key = c\n",
			"[default]\n" + keys, "",
			"A s    "},
	} {
		noAWS(t)
		awsFiles(t, c.config, c.secret)
		t.Setenv("AWS_PROFILE", c.profile)
		f, err := readProfiles()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		id, secret, token := f.static(f.chosen)
		got := strings.Join([]string{id, secret, token, f.get("region"), f.endpoint("s3"),
			f.nested("s3", "addressing_style")}, " ")
		if got != c.want {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
}
