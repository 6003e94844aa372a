package term

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// What is asked over REST and not understood is answered in a sentence that says where to look.
func TestWhatIsNotUnderstoodOverRESTIsSaid(t *testing.T) {
	for _, test := range []struct{ method, path, body, want string }{
		{"POST", "/v1/apps/web/scale", `nonsense`, "the body is not JSON: look at line 1, column 2"},
		{"POST", "/v1/lending/contracts", "{\"contracts\":\n [],\n }", "the body is not JSON: look at line 3, column 2"},
		{"POST", "/v1/apps/web/scale", `{}{}`, "the body is not JSON: look at line 1, column 3"},
		{"PUT", "/v1/queues", `{"queues":[{"nome":"web"}]}`, `the body is not understood at line 1, column 13: unknown field "nome"`},
		{"PUT", "/v1/queues", `{"queues":[{"name":1}]}`, "the body is not understood at line 1, column 20: invalid value for string field name: 1"},
		{"POST", "/v1/apps/web/scale", `[]`, "the body is not understood at line 1, column 1: unexpected token ["},
		{"POST", "/v1/apps?dryrun=true", "name: web", `/v1/apps has no parameter "dryrun"`},
		{"POST", "/v1/apps?spec.name=web", "name: web", `/v1/apps has no parameter "spec.name"`},
		{"POST", "/v1/apps?manifest=x", "name: web", `/v1/apps has no parameter "manifest"`},
		{"POST", "/v1/apps?images[a]=b", "name: web", `/v1/apps has no parameter "images[a]"`},
		{"POST", "/v1/apps?diff=maybe", "name: web", `the parameter diff cannot be "maybe"`},
		{"GET", "/v1/apps/web/logs?tail=x", "", `the parameter tail cannot be "x"`},
		{"GET", "/v1/events?limit=3", "", `/v1/events has no parameter "limit"`},
		{"GET", "/v1/apps?tail=3", "", `/v1/apps has no parameter "tail"`},
		{"GET", "/v1/nodes/node-1?name=node-2", "", `/v1/nodes/node-1 has no parameter "name"`},
		{"DELETE", "/v1/images/team/web:1?forc=true", "", `/v1/images/team/web:1 has no parameter "forc"`},
	} {
		inZone(t, func(z *testZone) {
			request, _ := http.NewRequest(test.method, "http://zone"+test.path, strings.NewReader(test.body))
			response, err := z.web().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			said, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			want := strings.ReplaceAll(test.want, `"`, `\"`) + `; /v1/openapi.json describes the API"`
			if response.StatusCode != http.StatusBadRequest || !strings.Contains(string(said), `"message":"`+want) && !strings.Contains(string(said), `"message": "`+want) {
				t.Errorf("%s %s %s: %s %s, want %s", test.method, test.path, test.body, response.Status, said, want)
			}
		})
	}
}

// What the description of the API names is taken.
func TestParametersThatAreDescribedAreTaken(t *testing.T) {
	inZone(t, func(z *testZone) {
		for _, path := range []string{"/v1/events?tail=1&follow=false", "/v1/apps?queue=root", "/v1/registry/services/web?index=0", "/v1/nodes", "/v1/apps/"} {
			response, err := z.web().Get("http://zone" + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode == http.StatusBadRequest {
				t.Errorf("%s: %s", path, response.Status)
			}
		}
	})
}
