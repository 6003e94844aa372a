package term

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// described is what the served description says.
type described struct {
	Info        struct{ Title, Version string }
	Paths       map[string]map[string]operation
	Definitions map[string]*schema
}

type operation struct {
	OperationID string `json:"operationId"`
	Stream      bool   `json:"x-stream"`
	Parameters  []struct {
		Name, In string
		Required bool
		schema
		Schema *schema
	}
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type, Format         string
	Pattern              string
	Enum                 []any
	Minimum, Maximum     *float64
	Items                *schema
	Properties           map[string]*schema
	Required             []string
	AdditionalProperties any
}

// draw makes a value that a schema allows.
func (d described) draw(t *testing.T, s *schema, random *rand.Rand, depth int) any {
	if s.Ref != "" {
		s = d.Definitions[strings.TrimPrefix(s.Ref, "#/definitions/")]
	}
	switch {
	case len(s.Enum) > 0:
		return s.Enum[random.IntN(len(s.Enum))]
	case s.Type == "integer" || s.Type == "number":
		low, high := -1000.0, 1000.0
		if s.Minimum != nil {
			low, high = *s.Minimum, *s.Maximum
		}
		value := low + random.Float64()*(high-low)
		if s.Type == "integer" {
			return int64(value)
		}
		return value
	case s.Type == "boolean":
		return random.IntN(2) == 0
	case s.Type == "array":
		list := []any{}
		for range random.IntN(3) {
			if depth > 0 {
				list = append(list, d.draw(t, s.Items, random, depth-1))
			}
		}
		return list
	case s.Type == "string":
		return d.drawText(t, s, random)
	}
	object := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		if slices.Contains(s.Required, name) || depth > 0 && random.IntN(3) == 0 {
			object[name] = d.draw(t, property, random, depth-1)
		}
	}
	if open, ok := s.AdditionalProperties.(map[string]any); ok {
		raw, _ := json.Marshal(open)
		var value schema
		if err := json.Unmarshal(raw, &value); err != nil {
			t.Fatal(err)
		}
		object["any name"] = d.draw(t, &value, random, depth-1)
	}
	if s.Properties["startPeriod"] != nil {
		// Probes exclude each other, which this kind of schema cannot say.
		delete(object, "tcp")
		delete(object, "exec")
	}
	return object
}

func (d described) drawText(t *testing.T, s *schema, random *rand.Rand) string {
	candidates := []string{"", "web", "a b", "é", "10s", "0.5s", "-3.5s", "0s", "2s", "600s", "3600s", "86400s", "999999999s", "0", "7", "-3", "12345678901", "2026-01-01T00:00:00Z", "x\n"}
	if s.Format == "date-time" {
		return "2026-01-01T00:00:00Z"
	}
	if s.Format == "byte" {
		return "YWJj"
	}
	pattern := regexp.MustCompile(s.Pattern)
	for range 1000 {
		if text := candidates[random.IntN(len(candidates))]; pattern.MatchString(text) {
			return text
		}
	}
	t.Fatalf("no text that is known here matches %s", s.Pattern)
	return ""
}

// What the description of the REST face allows the gateway reads: whatever is refused is refused for what it means.
func TestWhatTheDescriptionAllowsIsRead(t *testing.T) {
	unread := regexp.MustCompile(`proto:|parsing|mismatch|unknown field|invalid character|cannot unmarshal|does not take|must be between|is not a number of lines|no event is of the kind|up to a day|it must be|has a negative`)
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		answer, err := z.web().Get("http://zone/v1/openapi.json")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var d described
		if err := json.NewDecoder(answer.Body).Decode(&d); err != nil {
			t.Fatal(err)
		}
		if d.Info.Title != "Mammoth" || d.Info.Version == apiv1.OpenAPIVersion {
			t.Errorf("it is titled %q, version %q", d.Info.Title, d.Info.Version)
		}
		random, streams, operations := rand.New(rand.NewPCG(1, 2)), 0, 0
		// In an order, so that a run that fails fails again.
		for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
			methods := d.Paths[path]
			for _, method := range slices.Sorted(maps.Keys(methods)) {
				op := methods[method]
				operations++
				if op.Stream {
					streams++
				}
				for range 40 {
					request := d.request(t, path, method, op, random)
					z.try(t, op, request, unread)
				}
			}
		}
		if streams != 5 || operations < 35 {
			t.Errorf("%d of %d operations are streams", streams, operations)
		}
	})
}

type made struct {
	method, url, body string
}

func (d described) request(t *testing.T, path, method string, op operation, random *rand.Rand) made {
	m := made{method: strings.ToUpper(method)}
	query := url.Values{}
	for _, parameter := range op.Parameters {
		switch parameter.In {
		case "path":
			path = strings.ReplaceAll(path, "{"+parameter.Name+"}", "web")
		case "query":
			// Those that wait for what never comes are left out.
			if random.IntN(2) == 0 && !slices.Contains([]string{"follow", "index"}, parameter.Name) {
				query.Set(parameter.Name, fmt.Sprint(d.draw(t, &parameter.schema, random, 3)))
			}
		case "body":
			raw, err := json.Marshal(d.draw(t, parameter.Schema, random, 6))
			if err != nil {
				t.Fatal(err)
			}
			m.body = string(raw)
		}
	}
	m.url = "http://zone" + path + "?" + query.Encode()
	return m
}

// try sends a request; of a stream the first bytes are enough.
func (z *testZone) try(t *testing.T, op operation, m made, unread *regexp.Regexp) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), m.method, m.url, strings.NewReader(m.body))
	if err != nil {
		t.Fatal(err)
	}
	client := z.web()
	client.Timeout = time.Second
	answer, err := client.Do(request)
	if err != nil {
		if !op.Stream {
			t.Errorf("%s: %v", op.OperationID, err)
		}
		return
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if answer.StatusCode >= 400 && unread.Match(text) || answer.StatusCode == http.StatusInternalServerError {
		t.Errorf("%s: %s %s %s: %d %s", op.OperationID, m.method, m.url, m.body, answer.StatusCode, text)
	}
}
