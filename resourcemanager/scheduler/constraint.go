package scheduler

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Constraint is a test of one node attribute.
type Constraint struct {
	Attribute string
	Operator  Operator
	// Values has one entry, several for In, none for Exists.
	Values []Value
}

// Operator compares a node attribute with a constraint's values.
type Operator uint8

// The operators of constraints.
const (
	Equal Operator = iota
	NotEqual
	Less
	Greater
	LessEqual
	GreaterEqual
	In
	Exists
)

// symbols holds the written form of each operator.
var symbols = [...]string{Equal: "==", NotEqual: "!=", Less: "<", Greater: ">", LessEqual: "<=", GreaterEqual: ">=", In: "in", Exists: "exists"}

// String is the operator as people write it.
func (o Operator) String() string { return symbols[o] }

// ParseConstraint reads a test as people write it: `disk_type == ssd`, `cores >= 8`, `zone in (a, b)`,
// `gpu exists`. Values are numbers, true or false, or text, which may stand in double quotes.
func ParseConstraint(text string) (Constraint, error) {
	tokens, err := constraintTokens(text)
	if err != nil {
		return Constraint{}, err
	}
	refuse := func(why string) (Constraint, error) {
		return Constraint{}, fmt.Errorf("constraint %q %s; write for example \"disk_type == ssd\", \"zone in (a, b)\" or \"gpu exists\": %w",
			text, why, errdefs.ErrInvalidArgument)
	}
	switch {
	case len(tokens) == 0:
		return refuse("is empty")
	case len(tokens) == 1:
		return refuse("has no operator")
	case len(tokens) == 2 && tokens[0].is("exists"):
		tokens[0], tokens[1] = tokens[1], tokens[0]
	}
	if !tokens[0].isName() {
		return refuse("does not begin with the name of an attribute")
	}
	c := Constraint{Attribute: tokens[0].text}
	operator, rest := tokens[1], tokens[2:]
	switch {
	case operator.quoted:
		return refuse("has no operator")
	case operator.text == "exists":
		if len(rest) > 0 {
			return refuse("says more after exists")
		}
		c.Operator = Exists
		return c, nil
	case operator.text == "in":
		values, ok := constraintList(rest)
		if !ok {
			return refuse("needs a list in parentheses after in")
		}
		c.Operator, c.Values = In, values
		return c, nil
	}
	found := false
	for o := Equal; o <= GreaterEqual; o++ {
		if operator.text == symbols[o] {
			c.Operator, found = o, true
		}
	}
	switch {
	case !found:
		return refuse(fmt.Sprintf("has the unknown operator %q", operator.text))
	case len(rest) == 0:
		return refuse("has no value")
	case len(rest) > 1 || rest[0].isPunctuation():
		return refuse("needs one value after " + operator.text + " (put text with spaces in double quotes)")
	}
	c.Values = []Value{rest[0].value()}
	if c.Values[0].Kind == FlagValue && c.Operator != Equal && c.Operator != NotEqual {
		return refuse("compares a flag; flags know only == and !=")
	}
	return c, nil
}

type constraintToken struct {
	text   string
	quoted bool
}

func (t constraintToken) is(word string) bool { return !t.quoted && t.text == word }

func (t constraintToken) isPunctuation() bool {
	return !t.quoted && t.text != "" && strings.ContainsRune("()=!<>,", rune(t.text[0]))
}

func (t constraintToken) isName() bool {
	return !t.quoted && t.text != "" && !t.isPunctuation()
}

func (t constraintToken) value() Value {
	if !t.quoted {
		if t.text == "true" || t.text == "false" {
			return Value{Kind: FlagValue, Flag: t.text == "true"}
		}
		if strings.Trim(t.text, "0123456789.-+eE") == "" {
			if number, err := strconv.ParseFloat(t.text, 64); err == nil {
				return Value{Kind: NumberValue, Number: number, Text: t.text}
			}
		}
	}
	return Value{Kind: TextValue, Text: t.text}
}

func constraintList(tokens []constraintToken) ([]Value, bool) {
	if len(tokens) < 3 || !tokens[0].is("(") || !tokens[len(tokens)-1].is(")") {
		return nil, false
	}
	var values []Value
	for i, token := range tokens[1 : len(tokens)-1] {
		if i%2 == 1 {
			if !token.is(",") {
				return nil, false
			}
			continue
		}
		if token.isPunctuation() {
			return nil, false
		}
		values = append(values, token.value())
	}
	return values, len(tokens)%2 == 1
}

// constraintTokens splits at spaces and around operators.
func constraintTokens(text string) ([]constraintToken, error) {
	var tokens []constraintToken
	for i := 0; i < len(text); {
		switch char := text[i]; {
		case char == ' ' || char == '\t':
			i++
		case char == '"':
			end := strings.IndexByte(text[i+1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("constraint %q has a quotation mark that is never closed: %w", text, errdefs.ErrInvalidArgument)
			}
			tokens = append(tokens, constraintToken{text: text[i+1 : i+1+end], quoted: true})
			i += end + 2
		case char == '(' || char == ')' || char == ',':
			tokens = append(tokens, constraintToken{text: text[i : i+1]})
			i++
		default:
			set := "=!<>"
			isOperator := strings.IndexByte(set, char) >= 0
			end := i
			for end < len(text) && !strings.ContainsRune(" \t\"(),", rune(text[end])) && (strings.IndexByte(set, text[end]) >= 0) == isOperator {
				end++
			}
			tokens = append(tokens, constraintToken{text: text[i:end]})
			i = end
		}
	}
	return tokens, nil
}

// String is the constraint as ParseConstraint reads it.
func (c Constraint) String() string {
	switch c.Operator {
	case Exists:
		return c.Attribute + " exists"
	case In:
		texts := make([]string, len(c.Values))
		for i, value := range c.Values {
			texts[i] = value.quoted()
		}
		return c.Attribute + " in (" + strings.Join(texts, ", ") + ")"
	}
	if len(c.Values) != 1 {
		return c.Attribute + " " + c.Operator.String()
	}
	return c.Attribute + " " + c.Operator.String() + " " + c.Values[0].quoted()
}

// String is the value as people write it.
func (v Value) String() string {
	switch v.Kind {
	case NumberValue:
		if v.Text != "" {
			return v.Text
		}
		return strconv.FormatFloat(v.Number, 'g', -1, 64)
	case FlagValue:
		return strconv.FormatBool(v.Flag)
	}
	return v.Text
}

// quoted quotes a text that ParseConstraint would otherwise read as something else.
func (v Value) quoted() string {
	text := v.String()
	if v.Kind != TextValue {
		return text
	}
	if tokens, err := constraintTokens(text); err == nil && len(tokens) == 1 && !tokens[0].quoted && !tokens[0].isPunctuation() && tokens[0].value() == v {
		return text
	}
	return `"` + text + `"`
}

// Matches reports whether a node passes that has this value of the constraint's attribute, or none if ok is false. A node without the
// attribute passes only !=.
func (c Constraint) Matches(have Value, ok bool) bool {
	switch c.Operator {
	case Exists:
		return ok
	case In:
		for _, want := range c.Values {
			if ok && have.equal(want) {
				return true
			}
		}
		return false
	}
	if len(c.Values) != 1 {
		return false
	}
	want := c.Values[0]
	switch c.Operator {
	case Equal:
		return ok && have.equal(want)
	case NotEqual:
		return !ok || !have.equal(want)
	}
	if !ok {
		return false
	}
	order, comparable := have.compare(want)
	if !comparable {
		return false
	}
	switch c.Operator {
	case Less:
		return order < 0
	case LessEqual:
		return order <= 0
	case Greater:
		return order > 0
	case GreaterEqual:
		return order >= 0
	}
	return false
}

// equal compares values of one kind as such and others by their text, so that a node's text 5.10 equals
// 5.10 as somebody wrote it.
func (v Value) equal(w Value) bool {
	switch {
	case v.Kind == NumberValue && w.Kind == NumberValue:
		return v.Number == w.Number
	case v.Kind == FlagValue && w.Kind == FlagValue:
		return v.Flag == w.Flag
	}
	return v.String() == w.String()
}

func (v Value) compare(w Value) (order int, ok bool) {
	switch {
	case v.Kind == NumberValue && w.Kind == NumberValue:
		switch {
		case v.Number < w.Number:
			return -1, true
		case v.Number > w.Number:
			return 1, true
		}
		return 0, true
	case v.Kind == TextValue && w.Kind == TextValue:
		return strings.Compare(v.Text, w.Text), true
	}
	return 0, false
}
