/* Which stage, drawing and node are chosen stands in the fragment: #after=fuse-qkv&part=layer&node=q. Without this
 * script all stages are shown. */
(function () {
  'use strict';
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const stages = all('section.stage'), buttons = all('.switch button');
  const parts = buttons.map(b => b.dataset.part).filter(part => part);
  /* An address that is also the name of a place would scroll what chooses out of sight. */
  stages.forEach(s => s.removeAttribute('id'));
  const detail = document.createElement('aside');
  detail.id = 'detail';

  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    const main = document.querySelector('main');
    const after = given.get('after') || main.dataset.first, last = stages[stages.length - 1].dataset.stage;
    return {
      after: stages.some(s => s.dataset.stage === after) ? after : last,
      part: parts.includes(given.get('part')) ? given.get('part') : parts[0],
      node: given.get('node') || (location.hash.length < 2 && main.dataset.node) || null,
    };
  };
  const write = change => {
    const now = Object.assign(read(), change);
    const fields = ['after=' + encodeURIComponent(now.after)];
    if (now.part !== parts[0]) fields.push('part=' + encodeURIComponent(now.part));
    if (now.node) fields.push('node=' + encodeURIComponent(now.node));
    location.hash = fields.join('&');
  };

  const stageOf = key => stages.find(s => s.dataset.stage === key);
  const figureOf = (stage, part) => all('figure', stage).find(f => f.dataset.part === part);
  const nodesOf = figure => all('[data-detail]', figure);
  /* "q[3]" as it stands, or "q" of the layer that is drawn. */
  const find = (figure, name) => nodesOf(figure).find(n => n.dataset.node === name) ||
      nodesOf(figure).find(n => n.dataset.name === name);

  /* Nodes that stay glide to their new places. */
  const places = figure => new Map(nodesOf(figure).filter(n => n.hasAttribute('transform')).map(n => [n.dataset.node, n]));
  const offset = (figure, node) => {
    const box = figure.querySelector('svg').viewBox.baseVal, at = node.transform.baseVal.consolidate().matrix;
    return [at.e - box.x, at.f - box.y];
  };
  const glide = (from, to) => {
    if (!from || from === to || matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    const before = places(from);
    places(to).forEach((node, name) => {
      const old = before.get(name), [x, y] = offset(to, node);
      const at = (dx, dy) => 'translate(' + dx + 'px, ' + dy + 'px)';
      const box = to.querySelector('svg').viewBox.baseVal;
      if (!old) {
        node.animate([{opacity: 0}, {opacity: 1}], 260);
        return;
      }
      const [oldX, oldY] = offset(from, old);
      node.animate([{transform: at(oldX + box.x, oldY + box.y)}, {transform: at(x + box.x, y + box.y)}],
          {duration: 260, easing: 'ease-in-out'});
    });
    all('.edge, .frame', to).forEach(e => e.animate([{opacity: 0}, {opacity: 1}], 320));
  };

  const mark = (list, is) => list.forEach(e => e.classList.toggle('chosen', is(e)));

  const showDetail = (stage, figure, node) => {
    mark(nodesOf(figure), n => n === node);
    all('.edge', figure).forEach(e => {
      e.classList.toggle('into', !!node && e.dataset.to === node.dataset.box);
      e.classList.toggle('out', !!node && e.dataset.from === node.dataset.box);
    });
    detail.remove();
    if (!node) return;
    const close = document.createElement('button');
    close.className = 'close';
    close.textContent = '\u00d7';
    close.setAttribute('aria-label', 'close');
    close.addEventListener('click', () => write({node: null}));
    detail.replaceChildren(close, document.getElementById(node.dataset.detail).content.cloneNode(true));
    all('.history li', detail).forEach(li => li.classList.toggle('now', li.dataset.stage === stage.dataset.stage));
    const notes = stage.querySelector('.notes');
    notes.prepend(detail);
    notes.scrollTop = 0;
  };

  /* A drawing may be larger than the window: the node that is chosen comes into sight, else the first. */
  const bringIntoSight = (figure, node) => {
    const first = figure.querySelector('[data-box]');
    if (node) {
      node.scrollIntoView({block: 'nearest', inline: 'nearest'});
    } else if (first && figure.scrollWidth > figure.clientWidth) {
      const room = figure.getBoundingClientRect(), at = first.getBoundingClientRect();
      if (at.left < room.left || at.right > room.right)
        figure.scrollLeft += (at.left + at.right - room.left - room.right) / 2;
    }
  };

  /* How large drawings are: a factor, or 'fit', so that all of one is in sight. */
  let scale = 1;
  const zoom = figure => {
    const svg = figure.querySelector('svg'), box = svg.viewBox.baseVal;
    const room = figure.parentElement.clientWidth, below = innerHeight - document.querySelector('.controls').offsetHeight - 40;
    const factor = scale === 'fit' ? Math.min(1, room / box.width, below / box.height) : scale;
    svg.style.width = box.width * factor + 'px';
    svg.style.height = box.height * factor + 'px';
  };
  const setScale = to => {
    const svg = shown.querySelector('svg'), now = parseFloat(svg.style.width) / svg.viewBox.baseVal.width;
    scale = to === 'fit' ? 'fit' : to === '1' ? 1 : Math.min(4, Math.max(0.2, now * (to === '+' ? 1.25 : 0.8)));
    zoom(shown);
  };

  let shown = null;
  const show = () => {
    const state = read(), stage = stageOf(state.after);
    let part = state.part, node = state.node ? find(figureOf(stage, part), state.node) : null;
    if (state.node && !node) /* it may be in another drawing */
      parts.forEach(other => {
        const found = node ? null : find(figureOf(stage, other), state.node);
        if (found) [node, part] = [found, other];
      });
    const figure = figureOf(stage, part);
    mark(stages, s => s === stage);
    mark(all('.strip a, .passes tr'), e => e.dataset.stage === (stage.dataset.of || state.after));
    const strip = document.querySelector('.strip'), chosen = strip.querySelector('.chosen');
    strip.scrollLeft = chosen.offsetLeft - strip.offsetLeft - (strip.clientWidth - chosen.offsetWidth) / 2;
    mark(buttons, b => b.dataset.part === part);
    zoom(figure);
    mark(all('figure, .list'), f => f.dataset.part === part);
    showDetail(stage, figure, node);
    bringIntoSight(figure, node);
    glide(shown, figure);
    shown = figure;
    document.documentElement.dataset.after = state.after;
    document.documentElement.dataset.node = node ? node.dataset.node : '';
  };

  /* From pass to pass, or with all of them from change to change. */
  const step = (by, each) => {
    const now = stageOf(read().after), among = each ? stages : stages.filter(s => !s.dataset.of);
    let at = among.indexOf(now);
    if (at < 0) at = among.findIndex(s => s.dataset.stage === now.dataset.of) - (by > 0);
    write({after: among[Math.min(Math.max(at + by, 0), among.length - 1)].dataset.stage});
  };

  document.addEventListener('click', event => {
    const sizing = event.target.closest('[data-zoom]');
    if (sizing) return setScale(sizing.dataset.zoom);
    const change = event.target.closest('[data-change]');
    if (change) return step(Number(change.dataset.change), true);
    const link = event.target.closest('a, [data-detail], .fold[data-part], .switch button');
    if (!link) {
      if (event.target.closest('figure')) write({node: null});
      return;
    }
    event.preventDefault();
    if (link.dataset.stage) write({after: link.dataset.stage});
    else if (link.dataset.node) write({node: link.dataset.node});
    else if (link.dataset.part) write({part: link.dataset.part, node: null});
    else if (link.hash) write({after: decodeURIComponent(link.hash.replace('#after=', ''))});
  });
  document.addEventListener('keydown', event => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const keys = {ArrowLeft: () => step(-1), ArrowRight: () => step(1), Escape: () => write({node: null}),
 ',': () => step(-1, true), '.': () => step(1, true), f: () => setScale('fit'), '+': () => setScale('+'), '-': () => setScale('-'), 0: () => setScale('1'),
      Home: () => step(-stages.length), End: () => step(stages.length)};
    const chosen = document.activeElement.closest('svg [role=button]');
    if (event.key === 'Enter' && chosen) chosen.dispatchEvent(new MouseEvent('click', {bubbles: true}));
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });

  document.documentElement.classList.add('js');
  addEventListener('hashchange', show);
  /* Beside another page: a node that is chosen in one is chosen in both. */
  if (parent !== window) {
    addEventListener('hashchange', () => parent.postMessage({qgcNode: read().node}, '*'));
    addEventListener('message', event => {
      if (event.data && 'qgcNode' in event.data && event.data.qgcNode !== read().node) write({node: event.data.qgcNode});
    });
  }
  addEventListener('resize', () => zoom(shown));
  show();
  scrollTo(0, 0);
})();
