package remote

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// s3Site is where a bucket is.
type s3Site struct {
	endpoint *url.URL // nil: Amazon's, of the region
	inPath   bool     // the bucket is in the path, not in the name of the host
	stack    string   // ".dualstack" for hosts that also have IPv6 addresses
}

// siteOf finds the endpoint in the environment and the profile.
func siteOf(files *awsProfiles, bucket string) (s3Site, error) {
	var s s3Site
	if os.Getenv("AWS_USE_DUALSTACK_ENDPOINT") == "true" {
		s.stack = ".dualstack"
	}
	text := files.endpoint("s3")
	if text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
			u.User != nil || u.RawQuery != "" {
			return s, fmt.Errorf("the endpoint of S3 (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or " +
				"endpoint_url) must be http://HOST or https://HOST, without a user or a query")
		}
		u.Path = strings.TrimRight(u.Path, "/")
		s.endpoint = u
	}
	style := cmp.Or(os.Getenv("AWS_S3_ADDRESSING_STYLE"), files.nested("s3", "addressing_style"))
	switch style {
	case "path":
		s.inPath = true
	case "virtual":
	case "", "auto":
		s.inPath = s.endpoint != nil || !hostLabel.MatchString(bucket)
	default:
		return s, fmt.Errorf("the addressing style of S3 is %q: it must be path, virtual or auto",
			style)
	}
	return s, nil
}

// hostLabel is a bucket's name that can begin a host's name. A dot would need another certificate.
var hostLabel = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// url is the address of an object, or of the bucket if the key is empty.
func (s s3Site) url(region, bucket, key string, query url.Values) *url.URL {
	u := &url.URL{Scheme: "https", Host: "s3" + s.stack + "." + signingRegion(region) + "." +
		partition(region)}
	if s.endpoint != nil {
		*u = *s.endpoint
	}
	if s.inPath {
		u.Path += "/" + bucket
	} else {
		u.Host = bucket + "." + u.Host
	}
	if key != "" || !s.inPath {
		u.Path += "/" + key
	}
	u.RawPath = s3utils.EncodePath(u.Path) // as it is signed
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u
}

// regionOf finds the region in the environment and the profile. It is empty if there is none. Then
// the bucket's answer tells it.
func regionOf(files *awsProfiles) string {
	region := cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"),
		files.get("region"))
	if !regionName.MatchString(region) {
		return ""
	}
	return region
}

// regionName is what a region may look like. It becomes part of a host's name.
var regionName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,40}$`)

// signingRegion is the region that requests are signed for.
func signingRegion(region string) string { return cmp.Or(region, "us-east-1") }

// partition is the domain of Amazon's hosts in a region.
func partition(region string) string {
	for _, p := range []struct{ prefix, domain string }{
		{"cn-", "amazonaws.com.cn"},
		{"us-iso-", "c2s.ic.gov"},
		{"us-isob-", "sc2s.sgov.gov"},
		{"us-isof-", "csp.hci.ic.gov"},
		{"eu-isoe-", "cloud.adc-e.uk"},
		{"eusc-", "amazonaws.eu"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.domain
		}
	}
	return "amazonaws.com"
}
