// A reviver that changes what is still to be walked; a replacer and `toJSON` that change what is written.
const answers = [];
try { answers.push(typeof JSON.parse('{"a":[1,2,3,{"b":[4,5]}],"c":{}}', function (key, value) { if (Array.isArray(this)) this.length = 0; if (key === 'b') { this.b = this; delete this.c; } return value; })); } catch (error) { answers.push(error.name); }
const list = [1, {toJSON() { list.length = 0; list[9] = list; return {toString: 1}; }}, 3];
try { answers.push(typeof JSON.stringify(list, (key, value) => { if (key === '2') list.length = 1; return value; }, 2)); } catch (error) { answers.push(error.name); }
try { answers.push(typeof JSON.stringify(new Proxy([1, 2, 3], {get(t, k) { t.length = 0; return k === 'length' ? 3 : t[k]; }}))); } catch (error) { answers.push(error.name); }
return answers;
