package term

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	manifests "github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec/spectest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
)

// refused is what REST answers to a manifest that is not taken.
type refused struct {
	Code    codes.Code
	Message string
	Details []struct {
		Type     string `json:"@type"`
		Mistakes []struct {
			Line, Column int
			Message      string
		}
	}
}

// send posts a manifest and gives the status and the text of the answer.
func (z *testZone) send(query, mediaType, manifest string) (int, string) {
	z.t.Helper()
	request, _ := http.NewRequest(http.MethodPost, "http://zone/v1/apps"+query, strings.NewReader(manifest))
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	response, err := z.web().Do(request)
	if err != nil {
		z.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		z.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// Every client is told what the command line tells: all mistakes, where they stand, and the key that was meant.
func TestTheServerTellsAllMistakesOfAManifestWithTheirPlaces(t *testing.T) {
	const manifest = `name: web
roles:
  front:
    image: web:1
    instnaces: 3
    resources: {cpu: -1}
  back:
    image: web:9
  admin: {image: web:1, network: host}
`
	const want = `line 5: unknown key "instnaces"; did you mean "instances"?
line 6: cpu: "-1" is not an amount of cpu; write cores as in 0.5, or millicores as in 500m
line 8: no image is named "web:9"
line 9: the operator of this zone does not allow the host's network; use the bridge network`
	inZone(t, func(z *testZone) {
		for _, query := range []string{"", "?validate", "?diff", "?dryRun=true"} {
			code, text := z.send(query, "application/yaml", manifest)
			var got refused
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			if code != http.StatusBadRequest || got.Code != codes.InvalidArgument || got.Message != want {
				t.Errorf("%s: %d %s", query, code, text)
			}
			if len(got.Details) != 1 || !strings.HasSuffix(got.Details[0].Type, "mammoth.api.v1.ManifestMistakes") || len(got.Details[0].Mistakes) != 4 {
				t.Fatalf("%s: the details are %+v", query, got.Details)
			}
			for i, place := range [][2]int{{5, 5}, {6, 22}, {8, 12}, {9, 34}} {
				mistake := got.Details[0].Mistakes[i]
				if mistake.Line != place[0] || mistake.Column != place[1] || !strings.HasSuffix(strings.Split(want, "\n")[i], mistake.Message) {
					t.Errorf("%s: mistake %d is %+v", query, i, mistake)
				}
			}
		}
		_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Manifest: []byte(manifest)})
		if details := status.Convert(err).Details(); status.Code(err) != codes.InvalidArgument || len(details) != 1 {
			t.Errorf("over gRPC: %v, %v", err, details)
		}
		if list := z.list(); len(list) != 0 {
			t.Errorf("there are %v", list)
		}
	})
}

func (z *testZone) list() []*apiv1.App {
	z.t.Helper()
	answer, err := z.apps().ListApps(context.Background(), &apiv1.ListAppsRequest{})
	if err != nil {
		z.t.Fatal(err)
	}
	return answer.GetApps()
}

// A manifest that is posted is refused with the sentence that everybody is told.
func TestAManifestIsRefusedWithTheSentenceThatEverybodyIsTold(t *testing.T) {
	inZone(t, func(z *testZone) {
		for _, c := range spectest.Cases() {
			_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Manifest: []byte(c.Manifest()), Validate: true})
			details := status.Convert(err).Details()
			if len(details) != 1 {
				t.Errorf("%s: %v", c.Name, err)
				continue
			}
			mistakes := details[0].(*apiv1.ManifestMistakes).GetMistakes()
			if len(mistakes) != 1 || mistakes[0].GetMessage() != c.Sentence || mistakes[0].GetLine() == 0 {
				t.Errorf("%s: %v, want %q", c.Name, mistakes, c.Sentence)
			}
		}
	})
}

// What is wrong with a manifest only in this zone is of the class that it has by itself.
func TestWhatOnlyTheZoneKnowsHasItsPlaceInAManifestToo(t *testing.T) {
	inZone(t, func(z *testZone) {
		for _, test := range []struct {
			manifest, want string
			code           int
		}{
			{"name: other\nimage: web:9\n", `line 2: no image is named \"web:9\""`, http.StatusNotFound},
			{"name: other\nimage: web:1\nnetwork: host\n", "line 3: the operator of this zone does not allow", http.StatusForbidden},
			{"name: other\nimage: web:1\nqueue: gold\n", `line 3: queue \"gold\" does not exist; those for apps are default`, http.StatusNotFound},
			{`{"name":"other","image":"web:9"}`, `line 1, column 25: no image is named \"web:9\""`, http.StatusNotFound},
		} {
			if code, text := z.send("", "", test.manifest); code != test.code || !strings.Contains(strings.ReplaceAll(text, `": `, `":`), test.want) {
				t.Errorf("%s: %d %s", test.manifest, code, text)
			}
		}
	})
}

// A manifest says what it is of: YAML unless it says JSON, and then it has to be that.
func TestManifestsComeAsYAMLAndAsJSON(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		const yaml, json = "name: web\nimage: web:1\n", `{"name": "web", "image": "web:1"}`
		for _, test := range []struct {
			mediaType, manifest, want string
			code                      int
		}{
			{"application/yaml", yaml, `"name":"web"`, http.StatusOK},
			{"application/x-yaml; charset=utf-8", yaml, `"name":"web"`, http.StatusOK},
			{"", yaml, `"name":"web"`, http.StatusOK},
			{"application/x-www-form-urlencoded", yaml, `"name":"web"`, http.StatusOK},
			{"application/yaml", json, `"name":"web"`, http.StatusOK},
			{"application/json", json, `"name":"web"`, http.StatusOK},
			{"application/json", yaml, "the body is not JSON: look at line 1, column 2", http.StatusBadRequest},
			{"application/json", `{"name": "web", "image": "web:1",}`, "the body is not JSON: look at line 1, column 34", http.StatusBadRequest},
			{"application/json", `{"spec": {"name": "web"}}`, `unknown key \"spec\"`, http.StatusBadRequest},
			{"image/png", yaml, `a manifest is application/yaml or application/json, not \"image/png\"`, http.StatusUnsupportedMediaType},
			{"nonsense;;", yaml, "a manifest is application/yaml", http.StatusUnsupportedMediaType},
			{"application/yaml", "", "there is nothing to deploy", http.StatusBadRequest},
			{"application/yaml", yaml + "---\n" + yaml, "line 3: the file has more than one document", http.StatusBadRequest},
			{"application/yaml", "a: &a [x, x]\nb: [*a, *a]\n", "anchors and aliases are not supported", http.StatusBadRequest},
			{"application/yaml", "name: web\x00", "there is a NUL character here", http.StatusBadRequest},
			{"application/json", strings.Repeat("[", 20_000), "the body is not JSON", http.StatusBadRequest},
		} {
			code, text := z.send("?dryRun", test.mediaType, test.manifest)
			if code != test.code || !strings.Contains(strings.ReplaceAll(text, `": `, `":`), test.want) {
				t.Errorf("%s %.60q: %d %.300s", test.mediaType, test.manifest, code, text)
			}
		}
	})
}

// A manifest that is only checked changes nothing, whether the app is there or not.
func TestValidateChecksAndChangesNothing(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		check := func(want int, pieces ...string) {
			t.Helper()
			code, text := z.send("?validate", "application/yaml", "name: web\nimage: web:1\ninstances: 2\n")
			for _, piece := range append(pieces, `"placements":[]`) {
				if code != want || !strings.Contains(strings.ReplaceAll(text, `": `, `":`), piece) {
					t.Errorf("%d %s, want %s", code, text, piece)
				}
			}
		}
		check(http.StatusOK, `"imageDigest":"sha256:web:1"`, `"instances":2`)
		if list := z.list(); len(list) != 0 {
			t.Errorf("there are %v", list)
		}
		if code, text := z.send("", "", "name: web\nimage: web:1\n"); code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
		check(http.StatusOK)
		if app := z.app("web"); app.GetGeneration() != 1 || app.GetWanted() != 1 {
			t.Errorf("it is %v", app)
		}
		if code, text := z.send("", "", "name: web\nimage: web:1\n"); code != http.StatusConflict || !strings.Contains(text, "deploy over it with its generation, 1") {
			t.Errorf("deployed twice: %d %s", code, text)
		}
		if code, text := z.send("?ifGeneration=-1", "", "name: web\nimage: web:1\ninstances: 2\n"); code != http.StatusOK {
			t.Errorf("deployed over: %d %s", code, text)
		}
		if code, text := z.send("?validate&ifGeneration=7", "", "name: web\nimage: web:1\n"); code != http.StatusConflict {
			t.Errorf("with another generation: %d %s", code, text)
		}
		// What the zone as a whole has against it is checked too.
		if code, text := z.send("?validate", "", "name: big\nimage: web:1\nresources: {memory: 1TiB}\n"); code != http.StatusBadRequest || !strings.Contains(text, "memory") {
			t.Errorf("what no node has: %d %s", code, text)
		}
	})
}

// What is read as a manifest and sent back changes nothing, and not what somebody else has changed meanwhile.
func TestAnAppIsReadAsTheManifestThatItIsDeployedBy(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		if code, text := z.send("", "", "name: web\nimage: web:1\ninstances: 2\nenv: {GREETING: hello}\nports: [8080]\n"); code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
		read := func() (text string, generation string) {
			t.Helper()
			code, body := z.get("/v1/apps/web/manifest")
			var answer struct{ Manifest, Generation string }
			if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
				t.Fatalf("%d %s, %v", code, body, err)
			}
			return answer.Manifest, answer.Generation
		}
		text, generation := read()
		if code, body := z.send("?diff&ifGeneration="+generation, "application/yaml", text); code != http.StatusOK || !strings.Contains(strings.ReplaceAll(body, `": `, `":`), `"effect":"UNCHANGED"`) {
			t.Errorf("sent back: %d %s", code, body)
		}
		if code, body := z.send("?ifGeneration="+generation, "application/yaml", strings.Replace(text, "instances: 2", "instances: 3", 1)); code != http.StatusOK {
			t.Errorf("changed: %d %s", code, body)
		}
		if code, body := z.send("?ifGeneration="+generation, "application/yaml", text); code != http.StatusConflict {
			t.Errorf("of an earlier generation: %d %s", code, body)
		}
		if text, _ := read(); !strings.Contains(text, "instances: 3\n") {
			t.Errorf("it is now %s", text)
		}
		if code, body := z.get("/v1/apps/none/manifest"); code != http.StatusNotFound {
			t.Errorf("of no app: %d %s", code, body)
		}
	})
}

// A diff names each key with both values, and the roles whose instances would be replaced.
func TestDiffTellsWhatWouldChange(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		diff := func(manifest string) *apiv1.DeployResponse {
			t.Helper()
			answer, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Manifest: []byte(manifest), Diff: true})
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		const shop = "name: shop\nroles:\n  front: {image: web:1, env: {GREETING: hello}}\n  worker: {image: web:1, instances: 2}\n"
		if answer := diff(shop); len(answer.GetPlacements()) != 3 || len(answer.GetDiff().GetRoles()) != 2 || answer.GetDiff().GetRoles()[0].GetEffect() != apiv1.RoleDiff_ADDED {
			t.Errorf("a new app: %v", answer)
		}
		if code, text := z.send("", "", shop); code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
		if answer := diff(shop); fmt.Sprint(effects(answer)) != "[front UNCHANGED worker UNCHANGED]" || len(answer.GetDiff().GetFields()) != 0 {
			t.Errorf("the same: %v", answer.GetDiff())
		}
		answer := diff("name: shop\npriority: 5\nroles:\n  front: {image: web:1, env: {GREETING: bye}}\n  worker: {image: web:1, instances: 3}\n")
		if fmt.Sprint(effects(answer)) != "[front REPLACED worker IN_PLACE]" {
			t.Errorf("the roles: %v", answer.GetDiff())
		}
		fields := append(answer.GetDiff().GetFields(), append(answer.GetDiff().GetRoles()[0].GetFields(), answer.GetDiff().GetRoles()[1].GetFields()...)...)
		var got []string
		for _, field := range fields {
			got = append(got, fmt.Sprintf("%s %s→%s", field.GetKey(), field.GetBefore(), field.GetAfter()))
		}
		if fmt.Sprint(got) != "[priority →5 env.GREETING hello→bye instances 2→3]" {
			t.Errorf("the fields: %v", got)
		}
		if app := z.app("shop"); app.GetGeneration() != 1 {
			t.Errorf("it was changed: %v", app)
		}
	})
}

func effects(answer *apiv1.DeployResponse) []string {
	var all []string
	for _, role := range answer.GetDiff().GetRoles() {
		all = append(all, role.GetRole()+" "+role.GetEffect().String())
	}
	return all
}

// A manifest comes to the same as the spec that it says, also in what both leave to the image.
func TestAManifestComesToTheSpecThatItSays(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.images["open:1"] = images.Config{Entrypoint: []string{"/web"}, ExposedPorts: []string{"8080/tcp"}}
		const manifest = "name: web\nimage: open:1\nhealth: http:/\nexpose: {http: {host: web.test}}\n"
		check := func(request *apiv1.DeployRequest) *apiv1.AppSpec {
			t.Helper()
			request.Validate = true
			answer, err := z.apps().Deploy(context.Background(), request)
			if err != nil {
				t.Fatal(err)
			}
			return answer.GetApp().GetSpec()
		}
		read, err := manifests.ParseApp([]byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		of, said := check(&apiv1.DeployRequest{Manifest: []byte(manifest)}), check(&apiv1.DeployRequest{Spec: read.Spec})
		if !proto.Equal(of, said) || of.GetRoles()[0].GetResources().GetPorts() != 1 {
			t.Errorf("the manifest comes to\n%v\nand the spec to\n%v", of, said)
		}
	})
}

// A file beside a manifest is in the store under another name than it is written by.
func TestAnImageMayBeCalledByAnotherName(t *testing.T) {
	inZone(t, func(z *testZone) {
		manifest := []byte("name: web\nimage: web.image\n")
		answer, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Manifest: manifest, Images: map[string]string{"web.image": "web:1"}})
		if err != nil || answer.GetApp().GetSpec().GetRoles()[0].GetImage() != "web:1" {
			t.Errorf("got %v, %v", answer, err)
		}
		_, err = z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Manifest: manifest, Images: map[string]string{"web.image": "web:9"}, IfGeneration: -1})
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `line 2: no image is named "web:9"`) {
			t.Errorf("one that is not there: %v", err)
		}
		_, err = z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Manifest: manifest, Spec: &apiv1.AppSpec{Name: "web"}})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("a manifest and a spec: %v", err)
		}
	})
}
