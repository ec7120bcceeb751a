package stores

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// The account that azurite has. Its key is published with it.
const (
	AzureAccount = "devstoreaccount1"
	AzureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/" +
		"K1SZFPTOtr/KBHBeksoGMGw=="
)

const azureVersion = "2021-12-02"

var versionHeader = map[string]string{"X-Ms-Version": azureVersion}

// azure is a server with the interface of Azure Blob Storage.
type azure struct{ url string }

// Azure starts azurite, which keeps blobs in memory.
func Azure(t TB) *Server {
	t.Helper()
	exe := program(t, "azurite-blob")
	k := azure{start(t, func(port int) *exec.Cmd {
		return exec.Command(exe, "--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port),
			"--inMemoryPersistence", "--skipApiVersionCheck", "--disableProductStyleUrl",
			"--disableTelemetry", "--silent")
	})}
	err := request("PUT", k.blob("")+"&restype=container", nil, 0, versionHeader)
	if err != nil {
		t.Fatalf("make the container: %v", err)
	}
	return &Server{URL: k.url, kind: k}
}

// env names the endpoint in a connection string; no other variable can.
func (azure) env(url string) map[string]string {
	protocol, _, _ := strings.Cut(url, ":")
	return map[string]string{"AZURE_STORAGE_CONNECTION_STRING": fmt.Sprintf(
		"DefaultEndpointsProtocol=%s;AccountName=%s;AccountKey=%s;BlobEndpoint=%s/%[2]s;",
		protocol, AzureAccount, AzureKey, url)}
}

// source names the account, since a bucket's name alone is not unique.
func (azure) source(_, prefix string) string {
	return "az://" + AzureAccount + "/" + Bucket + "/" + prefix
}

// blob gives the signed URL of a blob, or of the container.
func (k azure) blob(name string) string {
	resource := strings.TrimSuffix("/"+AzureAccount+"/"+Bucket+"/"+name, "/")
	return k.url + awsEscape(resource, "/") + "?" + AzureSAS("rwdlac", time.Now().Add(time.Hour))
}

// put makes a block blob by one request, which a folder of the test is small enough for.
func (k azure) put(name string, content io.Reader, size int64) error {
	return request("PUT", k.blob(name), content, size,
		map[string]string{"X-Ms-Version": azureVersion, "X-Ms-Blob-Type": "BlockBlob"})
}

func (k azure) remove(name string) error {
	return request("DELETE", k.blob(name), nil, 0, versionHeader)
}

// AzureSAS makes a shared access signature of the account: a query that grants permissions, such as
// "rl" for reading and listing, until it expires.
func AzureSAS(permissions string, expires time.Time) string {
	const services, resources, protocols = "b", "sco", "https,http"
	const begin, addresses, scope = "", "", ""
	end := expires.UTC().Format("2006-01-02T15:04:05Z")
	text := strings.Join([]string{AzureAccount, permissions, services, resources, begin, end,
		addresses, protocols, azureVersion, scope, ""}, "\n")
	key, err := base64.StdEncoding.DecodeString(AzureKey)
	if err != nil {
		panic(err)
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return url.Values{"sp": {permissions}, "ss": {services}, "srt": {resources}, "se": {end},
		"spr": {protocols}, "sv": {azureVersion},
		"sig": {base64.StdEncoding.EncodeToString(h.Sum(nil))}}.Encode()
}
