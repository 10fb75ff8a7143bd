"""Templates that use the language itself, each rendered with VARIABLES."""

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Hello,\tyou! \n"},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHi \u4f60\u597d \U0001f600"},
        {"role": "user", "content": "a'b\"c\\d\n\x01"},
    ],
    "empty": [],
    "text": "one two  three",
    "n": 7,
    "half": 0.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "d": {"b": 1, "a": [1, "x", None, True, {"k": "\u00e9"}], "items": "mine"},
    "bos_token": "<s>",
}

SNIPPETS = r"""
{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 3 ** 2 }} {{ 7 / 2 }}
{{ 1.5 + 1 }} {{ half * 2 }} {{ 1e3 }} {{ 0.1 + 0.2 }} {{ 2.0 ** 1 if false else 'x' }}
{{ 1 ~ 2 ~ 'a' ~ none ~ true ~ missing ~ 1.0 }}
{{ 'a' + 'b' ~ 'c' + 'd' }}
{{ 'ab' * 3 }}|{{ 'ab' * 0 }}|{{ 'ab' * -1 }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ 'a' == 1 }} {{ none == false }} {{ 1 != 2 }}
{{ missing == missing }} {{ missing == none }} {{ missing == '' }} {{ not missing }} {{ missing is defined }}
{{ 'x' in 'axb' }} {{ '' in 'a' }} {{ 'q' not in 'abc' }} {{ 1 in [1,2] }} {{ 'b' in d }} {{ 'z' in d }} {{ 'a' in missing }}
{{ yes and 'a' }} {{ no and 'a' }} {{ no or 'b' }} {{ '' or 0 or 'c' }} {{ 'a' or missing.x.y }} {{ not yes or yes }}
{{ 'a' if yes else 'b' }} {{ 'a' if no else 'b' }}|{{ 'a' if no }}|{{ 'a' if no else 'b' if no else 'c' }}
{{ 'x' is string }} {{ n is number }} {{ n is integer }} {{ half is float }} {{ yes is boolean }} {{ none is none }} {{ d is mapping }}
{{ messages is sequence }} {{ messages is iterable }} {{ 'abc' is sequence }} {{ d is sequence }} {{ n is iterable }} {{ missing is sequence }} {{ missing is iterable }}
{{ yes is true }} {{ yes is false }} {{ 1 is true }} {{ no is false }} {{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is divisibleby(3) }}
{{ n is eq 7 }} {{ n is equalto(7) }} {{ n is ne 7 }} {{ n is gt 3 }} {{ n is lt 3 }} {{ n is ge 7 }} {{ n is le 6 }} {{ 'a' is in 'abc' }} {{ 1 is in [2] }}
{{ n is not none }} {{ nothing is not none }} {{ not nothing is none }} {{ missing is not defined }} {{ raise_exception is callable }}
{{ true is boolean and 1 is integer and true is integer }} {{ n == 7 is integer }}
{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[-1]["role"] }} {{ messages[0].missing is defined }} {{ messages[9] is defined }}
{{ messages[1:] | length }} {{ messages[:-1] | length }} {{ messages[::-1][0].role }} {{ messages[1:3][0].role }} {{ messages[::2] | length }} {{ messages[5:] | length }} {{ messages[-2:] | length }}
{{ text[0] }}{{ text[-1] }} {{ text[2:5] }} {{ text[::-1] }} {{ text[:3] }}|{{ text[100:] }}|{{ text[-3:] }}|{{ text[5:2:-1] }}|{{ text[99] is defined }}
{{ d.b }} {{ d['b'] }} {{ d.a[1] }} {{ d['items'] }} {{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.zz is defined }}
{% for k, v in d.items() %}{{ k }}={{ loop.index }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for k in d.keys() %}{{ k }}{% endfor %}{{ d.values() | list | length }}
{% for k, v in d | items %}{{ k }},{% endfor %}{% for k, v in missing | items %}x{% endfor %}
{{ d | tojson }}
{{ d | tojson(indent=2) }}
{{ [] | tojson }} {{ {} | tojson }} {{ [[], {}] | tojson(indent=4) }} {{ "\x7f/<>&'" | tojson }} {{ messages[3].content | tojson }} {{ 1.0 | tojson }} {{ (1, 2) | tojson }}
{{ text | upper }} {{ 'ABC' | lower }} {{ 'hELLO wORLD' | capitalize }} {{ '\u4f60a' | upper }} {{ '' | capitalize }}|
{{ messages[1].content | trim }}|{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ '\u00a0x\u2003' | trim }}|{{ '\x1cx\u200b' | trim | length }}
{{ text | length }} {{ messages | length }} {{ d | count }} {{ missing | length }} {{ '\U0001f600\u4f60' | length }}
{{ missing | default('a') }} {{ '' | default('b') }} {{ '' | default('b', true) }} {{ none | d('c') }} {{ none | default('c', boolean=true) }} {{ missing | default }}|
{{ ['a', 'b', 3] | join(', ') }} {{ [] | join('x') }} {{ 'abc' | join('-') }} {{ ['a', missing, 'b'] | join }} {{ missing | join(',') }}|
{{ messages | map(attribute='role') | join('/') }} {{ ['a', 'B'] | map('upper') | join }} {{ messages | map(attribute='content') | map('length') | join(' ') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | join }} {{ messages | selectattr('content') | list | length }}
{{ [1, 2, 3, 4] | select('odd') | list | length }} {{ [0, '', 'a', none] | select | join }} {{ ['a', 'b', 'c'] | reject('equalto', 'b') | join(',') }} {{ ['a', 'b'] | reject('in', ['b', 'c']) | join }}
{{ 'yes' if [] | select else 'no' }} {{ 'yes' if [] | select | list else 'no' }}
{{ messages | first is mapping }} {{ (messages | last).role }} {{ [] | first is defined }} {{ 'abc' | first }}{{ 'abc' | last }} {{ (messages | selectattr('role', 'eq', 'user') | first).content | trim }}
{{ 'abc' | reverse }} {% for x in [1, 2, 3] | reverse %}{{ x }}{% endfor %} {{ [3, 4] | reverse | first }}
{{ 'a-b-c' | replace('-', '+') }} {{ 'a-b-c' | replace('-', '+', 1) }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('b', '') }} {{ 112 | replace(1, 'x') }}
{{ '7' | int + 1 }} {{ 7.9 | int }} {{ ' 42 ' | int }} {{ -3 | abs }} {{ 7 | string + '!' }} {{ true | int }}
{{ 'a,b,,c'.split(',') | length }} {{ 'a,b,,c'.split(',')[-1] }} {{ text.split() | length }} {{ text.split(' ') | length }} {{ 'a,b,c'.split(',', 1)[1] }} {{ ' a b '.split(none, 1)[1] }}| {{ 'abc'.split('</think>')[-1] }} {{ ''.split(',') | length }} {{ ''.split() | length }}
{{ messages[2].content.split('</think>')[-1].lstrip('\n') }} {{ messages[2].content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }} {{ '</think>' in messages[2].content }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'abcba'.strip('ab') }}|{{ 'xaax'.rstrip('x') }}|
{{ text.startswith('one') }} {{ text.startswith('') }} {{ text.endswith('three') }} {{ text.startswith(('x', 'o')) }} {{ text.endswith('xx one two  three') }}
{{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ 'aBC'.capitalize() }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ '-'.join(['a', 'b']) }} {{ ', '.join([]) }}|
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}
{% set ns = namespace(x=0, y='a') %}{% for i in range(4) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z is defined }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (a, b) = (b, a) %}{{ a }}{{ b }}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% set x %}  a{{ n }}b {% endset %}[{{ x }}]{{ x | length }}
{% for i in range(3) %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}|{% for i in range(2, 9, 3) %}{{ i }}{% endfor %}|{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}|{{ range(5) | length }}
{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}
{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}>{{ (loop.nextitem | default({'role': 'end'})).role }} {% endfor %}
{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role[0] }}{{ loop.last }}{% else %}none{% endfor %}{% for m in empty %}x{% else %}none{% endfor %}
{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}!
{% for i in [1, 2] %}{% for j in [1, 2] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}
{% for c in 'a\u4f60c' %}{{ c }}.{% endfor %}{% for c in missing %}x{% endfor %}
{% macro f(a, b='B', c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=4) }}{{ f() }}{{ f('x' ~ f(9)) }}
{% macro g(n) %}{% if n > 0 %}{{ n }}{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g(3) }}{% set z = 5 %}{% macro h() %}{{ z }}{% endmacro %}{{ h() }}{% set z = 6 %}{{ h() }}
{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}{% if n > 8 %}a{% elif n > 3 %}b{% else %}c{% endif %}{% if n > 8 %}a{% elif n > 7 %}b{% else %}c{% endif %}{% if no %}x{% endif %}
{% if yes %}{% set q = 1 %}{% endif %}{{ q }}{% if no %}{% set r = 1 %}{% endif %}{{ r is defined }}
{% generation %}made{% endgeneration %}
{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%B %-d, %Y, %A %a') }}|{{ strftime_now("%Y-%m-%d %H:%M:%S %y%%") }}
{{ [1, 2] + [3] | list | length }}
{{ ([1, 2] + [3]) | length }} {{ [1, [2]] == [1, [2]] }} {{ (1, 2) == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ [1,2][1] }} {{ (1,)[0] }} {{ [] == [] }}
{{ {'a': 1, 'b': 2}.b }} {{ {1: 'x'}[1] }} {{ dict(a=1).a }} {{ {'a': {}}.a | length }}
{{ "q\"uo\'te" }} {{ 'tab\tnew\\n' }} {{ "\x41\u0042\U00000043" }} {{ '\d\q' }} {{ 'a' 'b' "c" }}
{{ (1 if yes else 2) + 1 }} {{ (text | upper)[0] }} {{ -n + 1 }} {{ - 3 | abs }} {{ +4 }} {{ not (1 == 2) }} {{ [not yes, 1 == 1][1] }}
{{ messages[0].content[0] | lower }} {{ messages.0.role }} {{ d.a.1 }} {{ n.__class__ if false else 'ok' }} {{ none.x is defined }} {{ none['x'] is defined }} {{ 'abc'.nope is defined }}
{#- comment -#} x {# y #} z {{- ' w ' -}} v {%- if yes %} u {%- endif %} t
{%- set a = 'x' -%}  a  {%- if a == 'x' -%}  b  {%- endif -%}  c  
{{ '{{' }} {{ '%}' }} { { } } {{ "}}" }} {{ {'a': {'b': 1}}['a']['b'] }} {{'a'}}{{'b'}}
{{ true }} {{ True }} {{ false }} {{ None }} {{ none }} {{ 3.0 }} {{ 100000 }} {{ 1.25 }} {{ -0.5 }}
{{ messages[1]['content'] | trim + '!' }} {{ (bos_token + text) | length }} {{ bos_token }}
{% set content = messages[2]['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ content | trim }}
{{ [x for x in y] if false }}
{{ messages | length - 1 }} {{ messages | length > 2 and yes }} {{ messages|length is gt 3 }}
{{ text is string and text is not none }} {{ (text is string) == true }} {{ text is defined and text }}
{% for m in messages[1:] %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}bad{% endif %}{{ loop.index0 % 2 }}{% endfor %}
{{ raise_exception('told: ' ~ n) }}
{{ missing.x }}
{{ missing() }}
{{ missing + 1 }}
{{ 1 + 'a' }}
{{ 'a' < 1 }}
{{ 1 // 0 }}
{{ none | length }}
{{ text.nope() }}
{{ [] | select | length }}
{{ n | join }}
{% for x in n %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% set n.x = 1 %}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% break %}
{{ 1 +
{% if 1 %}
{{ 'abc }}
{{ ) }}
{{ a b }}
{# never ends
{% endif %}
{% else %}
{{ 'x' | nofilter }}
{{ 'x' is notest }}
{% nostatement %}
{{ {}[[]] if false else 'k' }}
"""

# Newlines around blocks, which the list above cannot have.
LINES = [
    "a\n  {% if yes %}\n  b\n  {% endif %}\nc\n",
    "a\n  {%+ if yes %}\n  b\n  {%+ endif +%}\nc\n\n",
    "a\n  {{ 'x' }}\n  {# c #}\n  {%- if yes -%}\n  b\n\n  {%- endif -%}\n\n c\n",
    "  {% if yes %} b {% endif %}  \n  c",
    "{% if yes %}\n\n{% endif %}\n\n\n",
    "a\r\n  {% if yes %}\r\nb\r{% endif %}\rc\r\n",
    "\t{% set a = 1 %}\n\u00a0{% set b = 2 %}\n{{ a }}\n",
    "{% set a = 1 %}  {% set b = 2 %}\n{{ a }}  {% set c = 3 %} x",
    "{{ 'a' }}\n{{ 'b' -}}\n\n {{ 'c' }}\n \n{{- 'd' }}\n",
    "x {#- a\n b -#}\n\n y {#+ c +#}\n z\n   {# d #}\n{# e #}   {# f #}\n",
    "{%- for i in [1, 2] %}\n{{ i }}\n{%- endfor %}\n",
    "{%- for i in [1, 2] -%}\n{{ i }}\n{% endfor -%}\n end\n",
    "{{ 'line\none' }}{{ \"a\\\nb\" }}",
    "", "\n", "\n\n", "plain", "{", "{ {", "a{b}", "{}", "%}", "}}", "#}",
    "{% macro f() -%}\n  x\n  {%- if yes %}\n y\n  {% endif %}\n{%- endmacro %}\n[{{ f() }}]",
    "{% set x %}\n  a\n{% endset %}\n[{{ x }}]\n",
    "{{ messages[1].content }}|{{ messages[3].content }}|{{ messages[2].content }}",
    "\ufeffa\u2028  {% if yes %}\u2028b{% endif %}",
]


def all_templates():
    return [s for s in SNIPPETS.split("\n") if s] + LINES
