package endpoints_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// ask has the app's first instance ask what it knows as the registry.
func (z *liveZone) ask(method, path, body string) (status int, answer string) {
	z.t.Helper()
	app, err := z.App(z.ctx, "web")
	if err != nil || len(app.Instances) == 0 {
		z.t.Fatalf("web has no instance: %v", err)
	}
	query := url.Values{"method": {method}, "path": {path}, "body": {body}}
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/registry?%s", app.Instances[0].Port, query.Encode()))
	if err != nil {
		z.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// A container on the bridge of a zone that listens on loopback alone looks services up and registers an endpoint of its own,
// and reaches nothing else of the zone; it still does after its NodeManager was killed.
func TestAContainerReachesTheRegistryAndNothingElse(t *testing.T) {
	z := newLiveZone(t)
	z.deploy(webManifest, z.Programs.Hello)
	look := func(when string) {
		t.Helper()
		if status, answer := z.ask("GET", "/v1/registry/services/web", ""); status != http.StatusOK || !strings.Contains(answer, `"web-1"`) || !strings.Contains(answer, `"web-2"`) {
			t.Errorf("%s a look-up is answered %d %s", when, status, answer)
		}
	}
	look("at first")
	if status, answer := z.ask("PUT", "/v1/registry/services/admin.web/endpoints/mine", `{"address": "10.0.0.7", "port": 9000}`); status != http.StatusOK {
		t.Errorf("a registration is answered %d %s", status, answer)
	}
	if endpoints, err := z.Endpoints(z.ctx, "admin.web"); err != nil || len(endpoints) != 1 || endpoints[0].ID != "mine" || endpoints[0].Port != 9000 {
		t.Errorf("the zone knows of %+v, %v", endpoints, err)
	}
	if status, answer := z.ask("PUT", "/v1/registry/services/other/endpoints/mine", `{"address": "10.0.0.7", "port": 9000}`); status != http.StatusForbidden {
		t.Errorf("a registration under another's name is answered %d %s", status, answer)
	}
	for _, path := range []string{"/v1/apps", "/v1/nodes", "/v2/_catalog", "/metrics"} {
		if status, answer := z.ask("GET", path, ""); status != http.StatusForbidden {
			t.Errorf("%s is answered %d %s", path, status, answer)
		}
	}
	if status, answer := z.ask("POST", "/v1/apps/web/stop", "{}"); status != http.StatusForbidden {
		t.Errorf("a stop is answered %d %s", status, answer)
	}

	z.Kill()
	if err := z.Restart(z.ctx); err != nil {
		t.Fatal(err)
	}
	z.until("the registry after a restart", func() bool {
		status, _ := z.ask("GET", "/v1/registry/services/web", "")
		return status == http.StatusOK
	})
	look("after a restart")
}
