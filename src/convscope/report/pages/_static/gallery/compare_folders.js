// Whether the two folders still hold the galleries that were compared.

// The digest that a gallery's own script tells; undefined where there is none.
function digestIn(folder) {
  return new Promise((done) => {
    const script = element("script");
    script.onload = script.onerror = () => {
      const found = window.convscopeGallery;
      delete window.convscopeGallery;
      script.remove();
      done(found && found.digest);
    };
    script.src = `${folder}/gallery.js`;
    document.head.append(script);
  });
}

function withoutPicture(target) {
  target.classList.add("lost");
  target.textContent = "not the one compared";
}

// One function per side that shows its pictures, or says that they aren't those compared.
async function checkedSprites(sides, place) {
  const shows = [];
  for (const side of sides) { // one after the other: both scripts set the same name
    const same = await digestIn(side.folder) === side.digest;
    shows.push(same ? makeSprites(side.folder) : withoutPicture);
    if (!same) place.append(element("p", "missing", `The gallery in ${side.name} has been made anew since this comparison (or isn’t there): its pictures aren’t those compared. Run gallery-compare again.`));
  }
  return shows;
}
